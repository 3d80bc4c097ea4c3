"""What is dropped because of other images."""

from assets.curated_images.rejection import Repetitions, too_small_classes


def test_exact_duplicates_name_the_first():
    seen = Repetitions()
    assert seen.repeated_pixels("a", "cat", b"1") is None
    assert seen.repeated_pixels("b", "cat", b"2") is None
    assert seen.repeated_pixels("c", "cat", b"1") == ("duplicate", "same pixels as a")
    assert seen.repeated_pixels("d", "dog", b"1") == ("duplicate", "same pixels as a of class cat; this one is of class dog")
    assert seen.repeated_pixels("e", None, b"2") == ("duplicate", "same pixels as b of class cat; this one is of the library")


def test_repeated_ids():
    seen = Repetitions()
    assert seen.repeated_id("a") is None
    assert seen.repeated_id("a") == ("duplicate_id", "an earlier row has this id")


def test_small_classes():
    assert too_small_classes(["a", "a", "b", None, "c", "c", "c"], 3) == {
        "a": ("class_too_small", "class a has 2 usable picture(s); a class needs 3"),
        "b": ("class_too_small", "class b has 1 usable picture(s); a class needs 3"),
    }
