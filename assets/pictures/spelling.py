"""When two texts are the same but for their spelling. Which texts belong to a picture is decided elsewhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def normalised(text: str) -> str:
    """What two spellings of one text have in common: NFKC, case folded, white space single."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def distinct(texts: Iterable[str]) -> list[str]:
    """The first spelling of every text that is not empty, in the order given."""
    first: dict[str, str] = {}
    for text in texts:
        if key := normalised(text):
            first.setdefault(key, text.strip())
    return list(first.values())
