"""One spelling for what means the same: labels, families, captions and paths are compared by it, everywhere in this package."""

from __future__ import annotations

import unicodedata


def one_spelling(text: str) -> str:
    """Accents as part of their letter (Unicode's NFC). macOS lists files with accents as characters of their own (NFD)."""
    return unicodedata.normalize("NFC", text)
