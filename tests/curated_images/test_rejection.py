"""What is dropped because of other images."""

from assets.curated_images.rejection import repeated_pictures, too_small_classes


def row(name: str, label: str | None, *captions: str, given: str | None = None) -> dict[str, object]:
    return {"id": name, "label": label, "captions": list(captions), "given_split": given}


def test_copies_name_the_one_that_stays():
    rows = [row("a", "cat"), row("b", "cat"), row("c", "cat"), row("d", "dog"), row("e", None)]
    rejected, captions = repeated_pictures(rows, [b"1", b"2", b"1", b"1", b"2"])
    assert rejected == {
        2: ("duplicate", "same pixels as a", "a"),
        3: ("duplicate", "same pixels as a of class cat; this one is of class dog", "a"),
        4: ("duplicate", "same pixels as b of class cat; this one is of the library", "b"),
    }
    assert captions == {0: [], 1: []}


def test_which_copy_stays():
    """A label is worth more than a given split, that more than captions, and these more than the alphabet."""
    rows = [row("a", None, "x"), row("b", "cat"), row("c", "cat", "y"), row("d", "cat", given="train"), row("e", "cat", given="test")]
    for staying in (4, 3, 2, 1, 0):
        rejected, captions = repeated_pictures(rows[: staying + 1], [b"1"] * (staying + 1))
        assert rejected.keys() == set(range(staying + 1)) - {staying}
        assert captions.keys() <= {staying}


def test_captions_of_another_class_are_not_merged():
    rows = [row("a", "cat", "purrs"), row("b", "dog", "barks"), row("c", "cat", "purrs", "sleeps"), row("d", None, "in the garden")]
    assert repeated_pictures(rows, [b"1"] * 4)[1] == {0: ["purrs", "sleeps", "in the garden"]}


def test_small_classes():
    assert too_small_classes({"a": 2, "b": 1, "c": 3}, 3) == {
        "a": ("class_too_small", "class a has 2 usable picture(s); a class needs 3", None),
        "b": ("class_too_small", "class b has 1 usable picture(s); a class needs 3", None),
    }
