"""What a collection of pictures cannot show, however it is trained on: said before a run by `plan` and after it by the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assets.metrics.bootstrap import too_few
from assets.training.validation import ENOUGH_UNSEEN, unseen_classes

FEW_NAMES = 20  # of test classes: with fewer, one name more or less is five points or more


@dataclass(frozen=True)
class Sides:
    """By split: which classes it has and which families (what an interval draws)."""

    classes: dict[str, set[str]]
    families: dict[str, set[str]]
    unseen: int  # validation classes with two pictures or more that training does not see
    captions: bool  # whether any picture has some


def sides(splits: Sequence[str], labels: Sequence[str | None], families: Sequence[str | None], *, captions: bool) -> Sides:
    """Of pictures, each with its split, label and family; pictures without a label are in none."""
    classes: dict[str, set[str]] = {split: set() for split in ("train", "validation", "test")}
    families_of: dict[str, set[str]] = {split: set() for split in classes}
    held_out: Counter[str] = Counter()
    for split, label, family in zip(splits, labels, families, strict=True):
        if label is not None and family is not None and split in classes:
            classes[split].add(label)
            families_of[split].add(family)
            held_out[label] += split == "validation"
    return Sides(classes, families_of, unseen_classes(held_out, classes["train"]), captions)


def limits(found: Sides, *, level: float) -> Iterator[str]:
    """One sentence for each; `level`: of the intervals."""
    tested, trained = len(found.families["test"]), len(found.classes["train"])
    least = next(count for count in range(1, 1000) if not too_few(count, level))
    if tested < least:
        yield (
            f"differences between recipes: {tested} test families (classes that belong together), and with fewer than {least} every"
            " difference is a tie"
        )
    if 0 < (names := len(found.classes["test"])) < FEW_NAMES:
        yield f"text→image search in fine steps: {names} class names ask, so each is {100 / names:.0f} points of text→image R@5"
    if trained < 2:
        yield "training: there is one class to train on, and nothing to distinguish it from. Give at least 3 classes"
    if found.unseen < ENOUGH_UNSEEN:
        yield (
            f"what training does to classes that it does not see: of these {found.unseen or 'none'} validate, and fewer than"
            f" {ENOUGH_UNSEEN} are too few, so validation may rise while the test does not."
            f" {trained} classes train: from few classes others gain little"
        )
    if both := found.classes["test"] & (found.classes["train"] | found.classes["validation"]):
        yield f"unseen classes alone: the source gives the split, and {len(both)} test classes are trained on too"
    if not found.captions:
        yield "what captions add: the pictures have none, so pseudo-captions are class names alone, and so are text queries"
