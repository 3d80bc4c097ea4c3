"""Which emoji belong together: classes that show nearly the same thing, so that one must not train while another is tested with.

A family follows from the code points alone, which never change, unlike names and the set of all emoji.
"""

from __future__ import annotations

IGNORED = {  # parts of a sequence that change who is shown, or where to, and not what
    "FE0F",  # variation selector
    "200D",  # zero-width joiner
    "2640",  # woman
    "2642",  # man
    "27A1",  # facing right
    *(f"{code:X}" for code in range(0x1F3FB, 0x1F400)),  # skin tones
}
SAME_AS = {
    "1F468": "1F9D1",  # man, woman → person
    "1F469": "1F9D1",
    "1F466": "1F9D2",  # boy, girl → child
    "1F467": "1F9D2",
    "1F474": "1F9D3",  # old man, old woman → older person
    "1F475": "1F9D3",
}
PERSON, CHILD = "1F9D1", "1F9D2"


def _codes(*points: int | range) -> set[str]:
    return {f"{each:X}" for point in points for each in (point if isinstance(point, range) else (point,))}


# after IGNORED and SAME_AS
FAMILIES = {
    "clock face": _codes(range(0x1F550, 0x1F568)),
    "moon": _codes(range(0x1F311, 0x1F31E)),
    "keycap": _codes(0x1F51F),
    "skin tone": _codes(range(0x1F3FB, 0x1F400)),
    "heart": _codes(0x2764, 0x2665, 0x1FA77, 0x1F9E1, range(0x1F499, 0x1F49D), 0x1FA75, 0x1F90E, 0x1F5A4, 0x1FA76, 0x1F90D),
    "circle": _codes(0x1F534, 0x1F535, 0x26AA, 0x26AB, range(0x1F7E0, 0x1F7E5)),
    "square": _codes(range(0x1F7E5, 0x1F7EC), 0x25AA, 0x25AB, range(0x25FB, 0x25FF), 0x2B1B, 0x2B1C),
    "diamond": _codes(range(0x1F536, 0x1F53A)),
    "book": _codes(0x1F4D5, range(0x1F4D7, 0x1F4DA)),
    "exclamation mark": _codes(0x2755, 0x2757),
    "question mark": _codes(0x2753, 0x2754),
    "prince": _codes(0x1F934, 0x1F478, 0x1FAC5),
    "Claus": _codes(0x1F385, 0x1F936) | {f"{PERSON}-1F384"},
    "dancer": _codes(0x1F483, 0x1F57A) | {f"{PERSON}-1FA70"},
    "pregnant": _codes(0x1F930, 0x1FAC3, 0x1FAC4),
    "couple": _codes(0x1F48F, 0x1F491, range(0x1F46B, 0x1F46E))
    | {f"{PERSON}-2764-{PERSON}", f"{PERSON}-2764-1F48B-{PERSON}", f"{PERSON}-1F91D-{PERSON}"},
    "family": _codes(0x1F46A),
}
FAMILY_OF = {code: family for family, codes in FAMILIES.items() for code in codes}


def family_of(hexcode: str) -> str:
    """The family of a code point sequence in hex, as emojibase writes it; most are alone in theirs, `emoji <code>`."""
    parts = hexcode.upper().split("-")
    code = "-".join(SAME_AS.get(part, part) for part in parts if part not in IGNORED)
    if not code:  # a gender sign or a skin tone by itself
        code = "-".join(part for part in parts if part not in ("FE0F", "200D"))
    if code.endswith("-20E3"):
        return "keycap"
    if "-" in code and set(code.split("-")) <= {PERSON, CHILD}:
        return "family"
    return FAMILY_OF.get(code, f"emoji {code}")
