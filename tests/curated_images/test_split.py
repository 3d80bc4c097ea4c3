"""The split: classes apart, the seed decides, the order of rows does not."""

import random
from collections import Counter

import pytest

from assets.curated_images.split import split_by_class
from assets.errors import UserError

SIZES = {f"class{n:02}": 2 + n % 7 for n in range(40)}
IMAGES = [(f"{label}-{n}", label) for label, size in SIZES.items() for n in range(size)] + [(f"library-{n}", None) for n in range(5)]


def split(images=IMAGES, *, seed=0, test_fraction=0.4, validation_fraction=0.1) -> dict[str, str]:
    ids, labels = zip(*images, strict=True)
    splits = split_by_class(ids, labels, seed=seed, test_fraction=test_fraction, validation_fraction=validation_fraction)
    return dict(zip(ids, splits, strict=True))


def labels_of(splits: dict[str, str], *wanted: str) -> set[str | None]:
    return {label for each, label in IMAGES if splits[each] in wanted}


def test_whole_classes_are_for_testing():
    splits = split()
    tested = labels_of(splits, "test")
    assert len(tested) == 16  # 0.4 · 40
    assert tested.isdisjoint(labels_of(splits, "train", "validation"))
    assert {each for each in splits if splits[each] == "library"} == {each for each, label in IMAGES if label is None}


def test_validation_takes_two_images_of_a_class_of_four_or_more():
    splits = split()
    pairs = Counter(label for each, label in IMAGES if splits[each] == "validation")
    training = [label for each, label in IMAGES if splits[each] in ("train", "validation")]
    assert set(pairs.values()) == {2}
    assert all(SIZES[label] >= 4 for label in pairs)
    assert 0.1 * len(training) <= sum(pairs.values()) < 0.1 * len(training) + 2


def test_the_seed_decides_and_the_order_does_not():
    shuffled = random.Random(5).sample(IMAGES, len(IMAGES))
    assert split(shuffled) == split() == split(list(reversed(IMAGES)))
    assert labels_of(split(seed=1), "test") != labels_of(split(), "test")


def test_more_validation_leaves_the_test_classes_and_earlier_pairs_as_they_are():
    few, many = split(validation_fraction=0.1), split(validation_fraction=0.3)
    assert labels_of(few, "test") == labels_of(many, "test")
    assert {each for each in few if few[each] == "validation"} < {each for each in many if many[each] == "validation"}


def test_no_validation():
    assert "validation" not in split(validation_fraction=0.0).values()


def test_classes_too_small_for_the_wanted_validation(caplog):
    small = [(f"{label}-{n}", label) for label in "abcdef" for n in range(3)]
    assert set(split(small).values()) == {"train", "test"}
    assert "validation has 0 images, not 1" in caplog.text


@pytest.mark.parametrize(("fraction", "tested"), [(0.01, 1), (0.99, 39)])
def test_at_least_one_class_on_either_side(fraction, tested):
    assert len(labels_of(split(test_fraction=fraction), "test")) == tested


@pytest.mark.parametrize("images", [[("a1", "a"), ("a2", "a")], [("l", None)]])
def test_fewer_than_two_classes(images):
    with pytest.raises(UserError, match=r"[01] class\(es\) with enough usable pictures: (a|none)\. At least 2"):
        split(images)
