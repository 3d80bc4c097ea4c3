"""Where the published recipe got better and worse: image search by class, and what a class's images find instead. It draws nothing.

Shapes: N images, d embedding. Rows are positions in test order; average precisions in percent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assets.report.examples import answer

FOUND = 5  # hits of each image that are looked at for what is found instead
NOTICEABLE = 1.0  # points; a class that moved less counts as unmoved


@dataclass(frozen=True)
class ClassChange:
    """Mean average precision over a class's images, with base and with the published recipe."""

    label: str
    rows: list[int]
    before: float
    after: float

    @property
    def points(self) -> float:
        return self.after - self.before

    @property
    def share(self) -> float:
        """What it adds to the mAP's change over all images, but for a factor: a class of two images can jump by chance."""
        return self.points * len(self.rows)


def class_changes(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[ClassChange]:
    """One for each class of labels [N] that has a query, sorted by label; before and after [N], nan where an image is no query."""
    asked = ~(np.isnan(before) | np.isnan(after))
    found = []
    for label in sorted(set(labels[asked])):
        rows = np.flatnonzero(labels == label)
        queries = rows[asked[rows]]
        found.append(ClassChange(str(label), rows.tolist(), float(before[queries].mean()), float(after[queries].mean())))
    return found


def most_gained(changes: Sequence[ClassChange], count: int) -> list[ClassChange]:
    """Up to `count` classes that rose, those that raised the mAP over all images most first; ties by label."""
    return sorted((each for each in changes if each.points > 0), key=lambda each: (-each.share, each.label))[:count]


def most_lost(changes: Sequence[ClassChange], count: int) -> list[ClassChange]:
    """Up to `count` classes that fell, those that lowered the mAP over all images most first; ties by label."""
    return sorted((each for each in changes if each.points < 0), key=lambda each: (each.share, each.label))[:count]


def tally(changes: Sequence[ClassChange]) -> dict[str, int]:
    """How many classes rose, fell, or moved by no more than NOTICEABLE points."""
    rose = sum(each.points > NOTICEABLE for each in changes)
    fell = sum(each.points < -NOTICEABLE for each in changes)
    return {"classes": len(changes), "rose": rose, "fell": fell, "stayed": len(changes) - rose - fell}


def found_instead(change: ClassChange, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[tuple[str, int]]:
    """The class names that stand wrongly among the first hits of the class's images in the space [N, d], the most frequent first."""
    wrong: Counter[str] = Counter()
    right = labels == change.label
    for row in change.rows:
        wrong.update(names[hit.row] for hit in answer(images[row], images, right, FOUND, row).hits if not hit.right)
    return sorted(wrong.items(), key=lambda each: (-each[1], each[0]))[:3]
