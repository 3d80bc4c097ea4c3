"""Which icons are one class, and that a folder is the same wherever it is drawn. The drawing itself needs the npm registry."""

from __future__ import annotations

import pytest

from tests.folders.__main__ import HEADS, chosen, class_of


@pytest.mark.parametrize(
    ("icon", "key"),
    [
        ("file-plus", "file-plus"),
        ("file-plus-outline", "file-plus"),
        ("file-plus-bold-duotone", "file-plus"),
        ("arrow-down-24-filled", "arrow-down"),
        ("arrow-down-16-filled", None),  # the same drawing at another size would be a near-duplicate
    ],
)
def test_a_style_makes_no_class(icon, key):
    assert class_of(icon) == key


def test_the_two_kinds_share_no_class_and_more_pictures_keep_the_first_ones():
    found = {f"{head}-{tail}": [("bi", "a"), ("ph", "b"), ("ri", "c")] for head in ("tree", HEADS[0]) for tail in "xyz"}
    concepts, alike = ([key for key, _ in chosen(found, kind, 100)] for kind in ("concepts", "alike"))
    assert sorted(concepts + alike) == sorted(found)
    assert all(key.startswith(HEADS[0]) for key in alike)
    assert [key for key, _ in chosen(found, "concepts", 4)] == concepts[:2]
