"""What people wrote about a picture, made usable: without control characters, without what says nothing of it. The picture itself stays."""

from __future__ import annotations

import re
from collections.abc import Sequence

SPACES = re.compile("[\t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]+")
# joiners stay: inside emoji, and between letters of Persian and Indic scripts, they belong to the text
INVISIBLE = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
SHOWN = 80  # characters

Note = tuple[str, str]  # a word, a sentence


def clean(captions: Sequence[str | None], boilerplate: re.Pattern[str] | None, max_characters: int) -> tuple[list[str], list[Note]]:
    """The captions that stay, in their order, and what was done to the others. `boilerplate` is matched with a whole caption."""
    kept: list[str] = []
    notes: list[Note] = []
    for caption in captions:
        text = caption or ""
        if not text.isprintable():  # nothing that the patterns match is
            text = INVISIBLE.sub("", SPACES.sub(" ", text))
        if not text.strip():
            notes.append(("caption_dropped", "a caption is empty"))
            continue
        if boilerplate is not None and boilerplate.fullmatch(text.strip()):
            notes.append(("caption_dropped", f"the caption {text.strip()[:SHOWN]!r} says nothing of the picture"))
            continue
        if text != caption:
            notes.append(("caption_cleaned", f"control characters were taken out of the caption {text.strip()[:SHOWN]!r}"))
        if len(text) > max_characters:
            notes.append(("caption_cut", f"a caption of {len(text):,} characters was cut after {max_characters:,}"))
            text = _cut(text, max_characters)
        kept.append(text)
    return kept, notes


def _cut(text: str, most: int) -> str:
    """At the last space before the limit, where there is one not far from it."""
    head = text[:most]
    at = head.rfind(" ")
    return (head[:at] if at > most // 2 else head).rstrip()


def pattern(boilerplate: Sequence[str]) -> re.Pattern[str] | None:
    """One pattern of several, which do not regard case."""
    return re.compile("|".join(f"(?:{each})" for each in boilerplate), re.IGNORECASE) if boilerplate else None
