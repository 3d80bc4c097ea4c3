"""Emoji that show nearly the same are one family: a man and a woman, every clock face, hearts of all colours."""

import pytest

from assets.source_images.emoji_families import family_of


@pytest.mark.parametrize(
    ("family", "codes"),
    [
        ("emoji 1F9D1-1F52C", ["1F9D1-200D-1F52C", "1F468-200D-1F52C", "1F469-200D-1F52C"]),  # scientists
        ("emoji 1F64B", ["1F64B", "1F64B-200D-2640-FE0F", "1F64B-200D-2642-FE0F", "1F64B-1F3FE"]),  # raising a hand
        ("emoji 1F6B6", ["1F6B6", "1F6B6-200D-27A1-FE0F", "1F6B6-200D-2640-FE0F-200D-27A1-FE0F"]),  # walking, facing right
        ("emoji 1F9D1", ["1F468", "1F469", "1F9D1"]),
        ("emoji 1F9D2", ["1F466", "1F467", "1F9D2"]),
        ("emoji 1F9D3", ["1F474", "1F475", "1F9D3"]),
        ("prince", ["1F934", "1F478"]),
        ("Claus", ["1F385", "1F936", "1F9D1-200D-1F384"]),
        ("dancer", ["1F483", "1F57A"]),
        ("couple", ["1F491", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F468", "1F46B", "1F9D1-200D-1F91D-200D-1F9D1"]),
        ("family", ["1F46A", "1F468-200D-1F467-200D-1F466", "1F9D1-200D-1F9D2"]),
        ("clock face", ["1F550", "1F55B", "1F55C", "1F567"]),
        ("moon", ["1F311", "1F318", "1F319", "1F31D"]),
        ("keycap", ["0023-FE0F-20E3", "0039-FE0F-20E3", "1F51F"]),
        ("heart", ["2764", "2764-FE0F", "1F9E1", "1F90D"]),
        ("circle", ["1F534", "26AA", "1F7E4"]),
        ("square", ["1F7E5", "2B1C", "25AA"]),
    ],
)
def test_siblings_are_one_family(family, codes):
    assert {family_of(code) for code in codes} == {family}


def test_what_shows_something_else_is_not_among_them():
    others = ["1F600", "2764-FE0F-200D-1F525", "23F0", "1F9D1-200D-1F680", "2640", "1F1E6-1F1F2", "1F1E6-1F1F7"]
    assert len({family_of(code) for code in others}) == len(others)
