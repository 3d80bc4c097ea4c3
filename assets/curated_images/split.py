"""Which image is for training, validation, test or the library: a function of ids, labels and a seed alone."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Sequence

from assets.errors import UserError

logger = logging.getLogger(__name__)

HELD_OUT = 2  # validation images of a class: one to search with, one to be found


def split_by_class(
    ids: Sequence[str], labels: Sequence[str | None], *, seed: int, test_fraction: float, validation_fraction: float
) -> list[str]:
    """The split of each image, in the given order; the order itself has no influence.

    test: whole classes, round(test_fraction · classes) of them, at least one and never all. validation: two images from each of as many
    training classes (of four images or more) as it takes to reach validation_fraction of the training classes' images. library: images
    without a label.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for each, label in zip(ids, labels, strict=True):
        if label is not None:
            members[label].append(each)
    if len(members) < 2:
        raise UserError(
            f"{len(members)} class(es) with enough usable pictures: {', '.join(members) or 'none'}. At least 2 are needed, one to train"
            " on and one to test with."
        )
    classes = sorted(members)
    random.Random(seed).shuffle(classes)
    tested = min(max(round(test_fraction * len(classes)), 1), len(classes) - 1)
    test, training = set(classes[:tested]), classes[tested:]

    if len(training) < 2:
        logger.warning("only one class to train on, so training has nothing to distinguish: give at least 3 classes")
    wanted = validation_fraction * sum(len(members[label]) for label in training)
    validation: set[str] = set()
    for label in training:
        if len(validation) >= wanted:
            break
        if len(members[label]) >= 2 * HELD_OUT:
            validation.update(random.Random(f"{seed} {label}").sample(sorted(members[label]), HELD_OUT))
    if len(validation) < wanted:
        logger.warning(
            "validation has %d images, not %.1f: only classes of at least %d pictures provide validation images",
            len(validation),
            wanted,
            2 * HELD_OUT,
        )

    def split_of(each: str, label: str | None) -> str:
        if label is None:
            return "library"
        if label in test:
            return "test"
        return "validation" if each in validation else "train"

    return [split_of(each, label) for each, label in zip(ids, labels, strict=True)]
