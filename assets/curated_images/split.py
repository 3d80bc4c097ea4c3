"""Which image is for training, validation, test or the library.

The side of a family (classes that belong together) is a function of its name and the seed alone, so new classes and new pictures move no
old one. A split that the source gives is honoured.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from assets.errors import UserError

logger = logging.getLogger(__name__)

EXAMPLES = 3
GIVES_VALIDATION = 4  # pictures that a class needs to give some where the hash holds out none


def split_images(
    ids: Sequence[str],
    labels: Sequence[str | None],
    families: Sequence[str | None],
    given: Sequence[str | None],
    *,
    seed: int,
    test_fraction: float,
    validation_classes: float,
    validation_pictures: float,
) -> list[str]:
    """The split of each image, in the given order; the order itself has no influence. `given`: the split that the source gives, or None.

    u is a uniform number in [0, 1) from a hash of the seed and a name. A family with u < test_fraction is for test; of the others the share
    `validation_classes` with the next smallest u is for validation, whole; the rest trains. Of the pictures that train, those with
    u(id) < validation_pictures are held out for validation. Images without a label are the library.

    With few families a side could be empty. Then: without a test family, the one with the smallest u is for test. With fewer than two
    families to train on (of three or more; with one of two), those with the largest u train. Without any validation picture, pictures that
    the source gives to training are held out too, by their hash; without any still, the share `validation_pictures` of the pictures that
    train, at least one: those with the smallest u in classes of four or more, at most half of a class. With fewer than two classes left
    to train on, those held out whole train with the picture of the largest u. Only a side chosen by these rules may change when the
    library grows.

    Otherwise a picture with a given split keeps it. The other pictures of its family go where the family's given ones are: with training
    ones first, then with test ones.
    """
    if unnamed := [each for each, label, family in zip(ids, labels, families, strict=True) if label is not None and family is None]:
        raise ValueError(f"labelled images need a family: {unnamed[:EXAMPLES]}")
    given_of: dict[str, set[str]] = defaultdict(set)
    for label, family, split in zip(labels, families, given, strict=True):
        if label is not None and family is not None and split is not None:
            given_of[family].add(split)
    known = {family for label, family in zip(labels, families, strict=True) if label is not None and family is not None}
    _check_enough({label for label in labels if label is not None}, known, given_of)
    side_of = _sides(known - given_of.keys(), given_of, seed, test_fraction, validation_classes)

    whole = [  # before pictures of training classes are held out
        "library" if label is None or family is None else split or side_of[family]
        for label, family, split in zip(labels, families, given, strict=True)
    ]
    splits = [
        "validation" if side == "train" and split is None and uniform(seed, "picture", each) < validation_pictures else side
        for each, side, split in zip(ids, whole, given, strict=True)
    ]
    if validation_pictures > 0 and "validation" not in splits:
        _hold_out(splits, ids, labels, seed, validation_pictures)
    _give_back(splits, whole, ids, labels, seed)
    if absent := [side for side in ("train", "test") if side not in splits]:
        raise UserError(
            f"no picture is for {' or '.join(absent)}: the source gives the split of {len(given_of)} families, and"
            f" {len(known - given_of.keys())} families are left to choose from. Give pictures of both sides, or no split at all."
        )
    _report(labels, splits, given_of, given)
    return splits


def uniform(seed: int, *name: str) -> float:
    """In [0, 1), the same on every machine: 53 bits of a SHA-256 of the seed and the name."""
    digest = hashlib.sha256("\0".join((str(seed), *name)).encode()).digest()
    return (int.from_bytes(digest[:7], "big") >> 3) / 2**53


def _check_enough(labels: Collection[str], families: Collection[str], given_of: Mapping[str, set[str]]) -> None:
    if len(labels) < 2:
        raise UserError(
            f"{len(labels)} class(es) with enough usable pictures: {', '.join(sorted(labels)) or 'none'}. At least 2 are needed, one to"
            " train on and one to test with."
        )
    if len(families) < 2 and len(given_of.get(next(iter(families)), ())) < 2:
        raise UserError(
            f"all {len(labels)} classes are of one family, {next(iter(families))}, and a family is never trained on and tested with. Give"
            " at least 2 families, or the split of each picture (column split of the captions file, or folders of its source)."
        )


def _sides(
    families: Collection[str], given_of: Mapping[str, set[str]], seed: int, test_fraction: float, validation_classes: float
) -> dict[str, str]:
    """train, validation or test for every family, those with given splits included."""
    by_number = sorted(families, key=lambda family: (uniform(seed, "family", family), family))
    until = test_fraction + (1 - test_fraction) * validation_classes
    side_of = {}
    for family in by_number:
        u = uniform(seed, "family", family)
        side_of[family] = "test" if u < test_fraction else "validation" if u < until else "train"
    of_given = {family: next(side for side in ("train", "test", "validation") if side in sides) for family, sides in given_of.items()}
    given = [split for sides in given_of.values() for split in sides]
    total = len(by_number) + len(given_of)
    if by_number and "test" not in side_of.values() and "test" not in given:
        side_of[by_number[0]] = "test"
    # from the largest u, but never the family that alone is for test
    wanted = min(2 if total > 2 else 1, total - 1) - given.count("train")
    rest = by_number if "test" in given else by_number[1:]
    for family in rest[max(0, len(rest) - wanted) :] if wanted > 0 else ():
        side_of[family] = "train"
    return side_of | of_given


def _hold_out(splits: list[str], ids: Sequence[str], labels: Sequence[str | None], seed: int, share: float) -> None:
    """Move pictures that train to validation, in place: those below `share`, else those of the smallest hash, at most half of a class."""
    rows_of: dict[str | None, list[int]] = defaultdict(list)
    for row, split in enumerate(splits):
        if split == "train":
            rows_of[labels[row]].append(row)
    if below := [row for rows in rows_of.values() for row in rows if uniform(seed, "picture", ids[row]) < share]:
        for row in below:
            splits[row] = "validation"
        return
    candidates = []
    for rows in rows_of.values():
        if len(rows) >= GIVES_VALIDATION:
            candidates += sorted(rows, key=lambda row: uniform(seed, "picture", ids[row]))[: len(rows) // 2]
    candidates.sort(key=lambda row: (uniform(seed, "picture", ids[row]), ids[row]))
    wanted = max(1, round(share * splits.count("train")))
    for row in candidates[:wanted]:
        splits[row] = "validation"


def _give_back(splits: list[str], whole: Sequence[str], ids: Sequence[str], labels: Sequence[str | None], seed: int) -> None:
    """Where pictures held out leave fewer than two classes to train on: a picture back to each class that has none, in place."""
    rows_of: dict[str | None, list[int]] = defaultdict(list)
    for row, side in enumerate(whole):
        if side == "train":
            rows_of[labels[row]].append(row)
    held_out = [rows for rows in rows_of.values() if all(splits[row] != "train" for row in rows)]
    if len(rows_of) - len(held_out) < 2:
        for rows in held_out:
            splits[max(rows, key=lambda row: (uniform(seed, "picture", ids[row]), ids[row]))] = "train"


def _report(labels: Sequence[str | None], splits: Sequence[str], given_of: Mapping[str, set[str]], given: Sequence[str | None]) -> None:
    labels_of: dict[str, set[str]] = defaultdict(set)
    for label, split in zip(labels, splits, strict=True):
        if label is not None:
            labels_of[split].add(label)
    unseen = labels_of["validation"] - labels_of["train"]
    logger.info(
        "classes: %d train, %d of them with pictures held out for validation; %d for validation alone; %d for test",
        len(labels_of["train"]),
        len(labels_of["validation"] & labels_of["train"]),
        len(unseen),
        len(labels_of["test"]),
    )
    if given_of:
        count = sum(split is not None for label, split in zip(labels, given, strict=True) if label is not None)
        both = sorted(labels_of["test"] & (labels_of["train"] | labels_of["validation"]))
        logger.info("the source gives the split of %d picture(s); it is kept", count)
        if both:
            logger.warning(
                "%d class(es) are trained on and tested with, because the source gives the split: %s%s. What is measured on them says"
                " nothing about unseen classes",
                len(both),
                ", ".join(both[:EXAMPLES]),
                ", …" if len(both) > EXAMPLES else "",
            )
    if len(labels_of["train"]) < 2:
        logger.warning("only one class to train on, so training has nothing to distinguish: give at least 3 classes")
    if "validation" not in splits:
        logger.warning(
            "no picture is for validation, so no epoch can be chosen by it: give classes of at least %d pictures, or raise"
            " curated_images.validation_pictures",
            GIVES_VALIDATION,
        )
