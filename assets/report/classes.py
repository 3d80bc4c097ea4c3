"""Section «Where it got better and worse»: image search by class and by group of classes, and what a class's images find instead.

Shapes: N images, d embedding. Rows are positions in test order; average precisions in percent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from assets.evaluations import Evaluation, TestSplit
from assets.measures import MEASURE_OF, percent, signed
from assets.report.album import Album
from assets.report.drawing import MUTED, RIGHT, WRONG, svg_panel
from assets.report.queries import answer
from assets.report.results import outcome_view

FOUND = 5  # hits of each image that are searched for what is found instead
NOTICEABLE = 1.0  # points; a class that moved less counts as unmoved
PICTURES = 8  # shown of a class that gained or lost
PANEL = (4.8, 1.9)  # inches
CHANGE_BIN = 5.0  # points


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
        """Proportional to what it adds to the change over all images: a class of two images can jump by chance."""
        return self.points * len(self.rows)


@dataclass(frozen=True)
class Changed:
    """All classes, and those that are shown, each with the names that its images find instead."""

    every: list[ClassChange]
    gained: list[tuple[ClassChange, list[tuple[str, int]]]]
    lost: list[tuple[ClassChange, list[tuple[str, int]]]]

    @property
    def rows(self) -> list[int]:
        """Every test image that showing them needs."""
        return [row for change, _ in (*self.gained, *self.lost) for row in change.rows[:PICTURES]]


def find_changed(base: Evaluation, published: Evaluation, test: TestSplit, count: int) -> Changed:
    """What changed from base to the published recipe, and up to `count` classes of either kind to show."""
    column = MEASURE_OF["image_to_image.map"].column
    before, after = (each.per_query[column].to_numpy() for each in (base, published))
    every = class_changes(test.labels, before, after)
    gained, lost = (
        [(change, found_instead(change, published.images, test.labels, test.names)) for change in most]
        for most in (most_gained(every, count), most_lost(every, count))
    )
    return Changed(every, gained, lost)


def class_changes(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[ClassChange]:
    """One for each class of labels [N] that has a query, sorted by label; before and after [N], nan where an image has nothing to find."""
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
    """Names of other classes among the first hits of the class's images in the space [N, d], the most frequent first."""
    wrong: Counter[str] = Counter()
    right = labels == change.label
    for row in change.rows:
        wrong.update(names[hit.row] for hit in answer(images[row], images, right, FOUND, row).hits if not hit.right)
    return sorted(wrong.items(), key=lambda each: (-each[1], each[0]))[:3]


def classes_view(changed: Changed, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page and its Markdown say. `groups` of metrics.json."""
    return {"tally": tally(changed.every), "noticeable": NOTICEABLE, "groups": group_views(groups)}


def changes_svg(changed: Changed) -> Markup:
    return Markup(svg_panel(PANEL, draw_changes, [each.points for each in changed.every]))


def class_cards(changed: Sequence[tuple[ClassChange, Sequence[tuple[str, int]]]], album: Album) -> dict[str, Any]:
    """Classes with their values before and after, some of their pictures, what is found instead, and whom to credit."""
    cards = [
        {
            "name": album.test.names[change.rows[0]],
            "before": percent(change.before),
            "after": percent(change.after),
            "left": percent(min(change.before, change.after)),
            "width": percent(abs(change.points)),
            "points": signed(change.points),
            "tiles": [album.picture(row, None) for row in change.rows[:PICTURES]],
            "instead": " · ".join(f"{name} ×{count}" for name, count in instead),
        }
        for change, instead in changed
    ]
    rows = [row for change, _ in changed for row in change.rows[:PICTURES]]
    return {"cards": cards, "credits": sorted({credit.short for credit in album.test.credits(rows)})}


def group_views(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table by group. A mean is None where no image of the group has another to find."""
    return [
        {
            **row,
            **_range(row["before"], row["after"]),
            "difference": outcome_view(row["difference"]) if row["difference"] else None,
        }
        for row in scores
    ]


def _range(before: float | None, after: float | None) -> dict[str, str | None]:
    if before is None or after is None:
        return {"before": None, "after": None, "left": None, "width": None}
    left, width = min(before, after), abs(before - after)
    return {"before": percent(before), "after": percent(after), "left": percent(left), "width": percent(width)}


def draw_changes(axes: Axes, points: Sequence[float]) -> None:
    """A histogram of the classes by their difference, `points`; a bar is CHANGE_BIN wide."""
    reach = max(CHANGE_BIN, CHANGE_BIN * np.ceil(max(map(abs, points), default=1.0) / CHANGE_BIN))
    edges = np.arange(-reach, reach + CHANGE_BIN, CHANGE_BIN)
    heights, _ = np.histogram(points, edges)
    colors = [WRONG if edge < 0 else RIGHT for edge in edges[:-1]]
    axes.bar(edges[:-1], heights, width=CHANGE_BIN * 0.86, align="edge", color=colors)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, symmetric=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("change of a class’s mAP, points")
    axes.set_ylabel("classes")
