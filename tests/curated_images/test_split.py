"""The split: families apart, the seed decides, the order of rows does not, and growth moves nobody."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from assets.curated_images.split import split_images, uniform
from assets.errors import UserError

SIZES = {f"class{n:03}": 2 + n % 7 for n in range(300)}
Picture = tuple[str, str | None, str | None, str | None]  # id, label, family, given split


def pictures_of(label: str, count: int, start: int = 0) -> list[Picture]:
    """Every third class shares its family with the next."""
    family = f"family {int(label[5:]) // 3 * 3}" if int(label[5:]) % 3 < 2 else label
    return [(f"{label}-{n}", label, family, None) for n in range(start, start + count)]


PICTURES = [picture for label, size in SIZES.items() for picture in pictures_of(label, size)]
PICTURES += [(f"library-{n}", None, None, None) for n in range(5)]


def split(
    pictures: Sequence[Picture] = PICTURES,
    *,
    seed: int = 0,
    test_fraction: float = 0.4,
    validation_classes: float = 0.15,
    validation_pictures: float = 0.1,
) -> dict[str, str]:
    ids, labels, families, given = zip(*pictures, strict=True)
    splits = split_images(
        ids,
        labels,
        families,
        given,
        seed=seed,
        test_fraction=test_fraction,
        validation_classes=validation_classes,
        validation_pictures=validation_pictures,
    )
    return dict(zip(ids, splits, strict=True))


def sides(pictures: Sequence[Picture], splits: dict[str, str]) -> dict[str, set[str]]:
    """Family → the splits of its pictures."""
    found: dict[str, set[str]] = defaultdict(set)
    for each, _, family, _ in pictures:
        if family is not None:
            found[family].add(splits[each])
    return found


def plain(classes: int, each: int = 6) -> list[Picture]:
    """Classes without a family of several."""
    return [(f"{label:05}-{n}", f"{label:05}", f"{label:05}", None) for label in range(classes) for n in range(each)]


@pytest.mark.parametrize("new_classes", [1, 10, 100])
def test_new_classes_and_new_pictures_move_no_old_picture(new_classes):
    """The sides once followed from the position among all classes: one new class moved 590 of 11,797 pictures."""
    before = split()
    grown = PICTURES + [each for n in range(new_classes) for each in pictures_of(f"class{300 + n}", 5)]
    grown += [each for n in range(0, 250, 5) for each in pictures_of(f"class{n:03}", 1, start=90)]
    after = split(grown)
    assert {each: after[each] for each in before} == before
    assert len(after) == len(before) + 5 * new_classes + 50


def test_no_family_is_on_two_sides():
    found = sides(PICTURES, split())
    assert all(each in ({"test"}, {"validation"}, {"train"}, {"train", "validation"}) for each in found.values())
    assert Counter(map(frozenset, found.values()))[frozenset({"validation"})] > 3
    assert {label for _, label, family, _ in PICTURES if family == "family 0"} == {"class000", "class001"}


def test_about_the_asked_shares_of_many_families():
    pictures = plain(2000)
    splits = split(pictures)
    found = Counter(map(frozenset, sides(pictures, splits).values()))
    assert found[frozenset({"test"})] / 2000 == pytest.approx(0.4, abs=0.03)
    assert found[frozenset({"validation"})] / 1200 == pytest.approx(0.15, abs=0.03)
    held_out = Counter(splits[each] for each, label, *_ in pictures if splits[f"{label}-0"] != "test")["validation"]
    assert held_out / (6 * 1200) == pytest.approx(0.15 + 0.85 * 0.1, abs=0.02)


def test_the_seed_decides_and_the_order_does_not():
    shuffled = random.Random(5).sample(PICTURES, len(PICTURES))
    assert split(shuffled) == split() == split(list(reversed(PICTURES)))
    assert split(seed=1) != split()


def test_more_validation_leaves_the_test_families_as_they_are():
    few, many = split(), split(validation_classes=0.3, validation_pictures=0.2)
    assert {each for each in few if few[each] == "test"} == {each for each in many if many[each] == "test"}
    assert {each for each in few if few[each] == "validation"} < {each for each in many if many[each] == "validation"}
    assert "validation" not in split(validation_classes=0.0, validation_pictures=0.0).values()


@pytest.mark.parametrize("families", [2, 3, 6])
@pytest.mark.parametrize("fraction", [0.001, 0.4, 0.999])
def test_few_families_leave_no_side_empty(families, fraction):
    for seed in range(20):
        splits = split(plain(families), seed=seed, test_fraction=fraction)
        found = sides(plain(families), splits)
        training = [family for family, of in found.items() if "train" in of]
        assert sum(of == {"test"} for of in found.values()) >= 1
        assert len(training) >= min(2, families - 1)
        assert "validation" in splits.values()
        for family in training:
            assert sum(splits[f"{family}-{n}"] == "train" for n in range(6)) >= 1


def test_without_a_picture_held_out_by_the_hash_large_classes_give_some():
    """15 classes of 6 once validated with six pictures, and 10 of hundreds with twelve."""
    pictures = plain(12, each=4)
    seed = next(seed for seed in range(300) if all(uniform(seed, "picture", each) >= 0.02 for each, *_ in pictures))
    splits = split(pictures, seed=seed, validation_classes=0.0, validation_pictures=0.02)
    assert Counter(splits.values())["validation"] == 1
    small = split(plain(12, each=3), seed=seed, validation_classes=0.0, validation_pictures=1e-9)
    assert "validation" not in small.values()


@pytest.mark.parametrize("given", [None, "train"])
def test_pictures_held_out_leave_classes_to_train_on(given):
    """With two pictures in each of a few classes the hash alone holds out all that train, for one seed in eighty."""
    for seed in range(400):
        few = [(f"{name}{n}", name, name, None) for name in "abc" for n in range(2)]
        if given:
            few = [(each, name, family, "test" if name == "a" else given) for each, name, family, _ in few]
        splits = split(few, seed=seed)
        assert len({each[0] for each, found in splits.items() if found == "train"}) == 2, (seed, splits)
        assert "train" in split([picture for picture in few if picture[1] != "c"], seed=seed).values(), seed


def test_nothing_to_validate_with_is_said(caplog):
    split(plain(6, each=3), validation_classes=0.0, validation_pictures=1e-9)
    assert "no picture is for validation" in caplog.text


@pytest.mark.parametrize("pictures", [[("a1", "a", "a", None), ("a2", "a", "a", None)], [("l", None, None, None)]])
def test_fewer_than_two_classes(pictures):
    with pytest.raises(UserError, match=r"[01] class\(es\) with enough usable pictures: (a|none)\. At least 2"):
        split(pictures)


def test_one_family_has_one_side():
    with pytest.raises(UserError, match=r"all 2 classes are of one family, f, .*at least 2 families"):
        split([("a", "a", "f", None), ("b", "b", "f", None)])


def test_a_given_split_is_kept_and_classes_on_both_sides_are_named(caplog):
    given = [
        (f"{split}-{label}-{n}", label, label, split) for split in ("train", "validation", "test") for label in "abc" for n in range(3)
    ]
    splits = split([*given, ("x", "a", "a", None), ("y", "d", "d", "test"), ("z", "d", "d", None), ("free", None, None, "test")])
    assert {each: splits[each] for each, *_ in given} == {each: each.partition("-")[0] for each, *_ in given}
    assert (splits["x"], splits["z"]) == ("train", "test"), "the rest of a family follows its given pictures"
    assert splits["free"] == "library"
    assert "3 class(es) are trained on and tested with, because the source gives the split: a, b, c." in caplog.text


def test_a_source_that_gives_train_and_test_alone_has_pictures_held_out_of_the_former():
    given = [
        (f"{split}-{label}-{n}", f"{label}", f"{label}", split) for split in ("train", "test") for label in range(20) for n in range(20)
    ]
    splits = split(given)
    assert {splits[each] for each, *_ in given if each.startswith("test")} == {"test"}
    held_out = [each for each, *_ in given if splits[each] == "validation"]
    assert 0.05 < len(held_out) / 400 < 0.15
    more = split([*given, *((f"train-new-{n}", "new", "new", "train") for n in range(100))])
    assert {each: more[each] for each in splits} == splits


def test_a_source_that_gives_no_test_pictures():
    with pytest.raises(UserError, match=r"no picture is for test: the source gives the split of 2 families"):
        split([("a", "a", "a", "train"), ("b", "b", "b", "train")])


def test_families_without_a_given_split_are_split_as_ever():
    """One class that the source puts into training must not move the others."""
    before = split()
    after = split([*PICTURES, ("new-0", "new", "new", "train"), ("new-1", "new", "new", "test")])
    assert {each: after[each] for each in before} == before
