"""The champion as promotion compares with it: what it scored on today's test split, without the classes that it was trained on.

Measuring it is the stage champion's, choosing it `make promote`'s. Percent and percentage points throughout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from assets import artifacts
from assets.errors import UserError
from assets.evaluations import Evaluation, TestSplit, read_evaluation
from assets.measures import AVERAGE, AVERAGED, PAIRED
from assets.promotion.comparison import query_families, query_values
from assets.recipes import CHAMPION

EXAMPLES = 3


@dataclass(frozen=True)
class Champion:
    """`recipe`: what it was called when it was chosen. `asked` bool [N + C]: the queries of test classes that it has not seen."""

    recipe: str
    evaluation: Evaluation
    asked: np.ndarray
    seen: list[str]  # families of test classes
    classes: int  # test classes that are left to compare on

    @property
    def model_sha256(self) -> str:
        return str(self.evaluation.made_with["model_sha256"])

    def row(self, evaluation: Evaluation) -> dict[str, Any]:
        """The row of metrics.json of the champion or of a recipe, over the queries that the champion may be asked."""
        return evaluation.metrics if self.asked.all() else row_over(evaluation, self.asked)

    def notes(self, of: int) -> list[str]:
        """Sentences for the verdict; `of`: how many test classes there are."""
        said = f"The champion is {self.recipe}; both are measured on the same pictures of today."
        if not self.seen:
            return [said]
        named = f"{', '.join(self.seen[:EXAMPLES])}{', …' if len(self.seen) > EXAMPLES else ''}"
        return [
            said,
            f"It was trained on {of - self.classes} of the {of} test classes, which are left out of the comparison (families: {named}).",
        ]


def read_champion(told: Mapping[str, Any], test: TestSplit) -> Champion | None:
    """`told`: champion.json. None without a champion; UserError where another model was measured than it names."""
    if told.get("recipe") is None:
        return None
    folder = artifacts.evaluation_dir(CHAMPION)
    try:
        evaluation = read_evaluation(CHAMPION, test)
        seen = artifacts.read_json(folder / artifacts.SEEN)["families"]
    except FileNotFoundError:
        raise UserError(
            f"{artifacts.CHAMPION} names {told['recipe']}, and {folder} lacks its results. `dvc repro champion` measures it."
        ) from None
    if evaluation.made_with["model_sha256"] != told["model_sha256"]:
        raise UserError(f"{folder} is of another model than {artifacts.CHAMPION} names. `dvc repro champion` measures that one.")
    asked = ~np.isin(query_families(evaluation.per_query, evaluation.per_class), seen)
    classes = sum(family not in set(seen) for family in test.families)
    return Champion(told["recipe"], evaluation, asked, seen, classes)


def row_over(evaluation: Evaluation, asked: np.ndarray) -> dict[str, Any]:
    """Means over some queries, as a row of metrics.json; None where no query asks, as of captions, which belong to no class."""
    values = query_values(evaluation.per_query, evaluation.per_class)[asked]
    row: dict[str, Any] = {"recipe": evaluation.recipe}
    means: dict[str, float | None] = {}
    for number, measure in enumerate(PAIRED):
        known = values[:, number][~np.isnan(values[:, number])]
        family, name = measure.key.split(".")
        means[measure.key] = round(float(known.mean()), 4) if len(known) else None
        row.setdefault(family, {})[name] = means[measure.key]
    averaged = [mean for key in AVERAGED if (mean := means[key]) is not None]
    average = round(sum(averaged) / len(AVERAGED), 4) if len(averaged) == len(AVERAGED) else None
    nothing = {"classes": 0, "images": 0}
    return row | {AVERAGE.key: average, "confidence": {"level": evaluation.level}, "without_siblings": nothing}


def split_digest(rows: pa.Table) -> str:
    """SHA-256 of the test images in `rows`, their classes and names."""
    columns = [rows[name].to_pylist() for name in ("id", "label", "class_name", "sha256")]
    return hashlib.sha256("".join("\0".join(row) + "\n" for row in sorted(zip(*columns, strict=True))).encode()).hexdigest()
