"""The table of measures: what each is called, what it measures, and what it is used for. Computing them is assets.metrics'.

Percent and percentage points throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Measure:
    """One row. `unit` is what one query is; its values are in `column` of per_query.parquet ("image") or per_class.parquet ("class").

    `family`: the name by which section promotion judges it, None where no family is judged by it. `settings`: those of section
    evaluation that the value depends on, besides precision.
    """

    key: str  # family.measure, as in metrics.json
    name: str  # for people
    meaning: str
    unit: Literal["image", "class", "caption"]
    column: str | None
    family: str | None
    in_average: bool
    settings: tuple[str, ...]


MEASURES = (
    Measure(
        "image_to_image.map",
        "image→image mAP",
        "every test image searches all the others; mean average precision",
        unit="image",
        column="average_precision",
        family="image_to_image",
        in_average=True,
        settings=(),
    ),
    Measure(
        "image_to_image.recall_at_1",
        "image→image R@1",
        "share of test images whose nearest other image is of their class",
        unit="image",
        column="hit_at_1",
        family=None,
        in_average=False,
        settings=(),
    ),
    Measure(
        "knn.accuracy",
        "k-NN",
        "class voted by the nearest other test images",
        unit="image",
        column="knn_correct",
        family="knn",
        in_average=True,
        settings=("knn_k", "knn_temperature"),
    ),
    Measure(
        "zero_shot.accuracy",
        "zero-shot",
        "class whose name is nearest to the image",
        unit="image",
        column="zero_shot_correct",
        family="zero_shot",
        in_average=True,
        settings=("prompts",),
    ),
    Measure(
        "text_to_image.recall_at_5",
        "text→image R@5",
        "every class name searches the images; recall among the first five",
        unit="class",
        column="recall_at_5",
        family="text_to_image",
        in_average=True,
        settings=(),
    ),
    Measure(
        "text_to_image.caption_recall_at_5",
        "caption→image R@5",
        "every caption searches the images; recall among the first five",
        unit="caption",
        column=None,
        family="caption_to_image",
        in_average=False,
        settings=(),
    ),
)
FAMILY_NAMES = {
    "image_to_image": "image→image",
    "knn": "k-NN",
    "zero_shot": "zero-shot",
    "text_to_image": "text→image",
    "caption_to_image": "caption→image",
}
AVERAGED = tuple(measure.key for measure in MEASURES if measure.in_average)
AVERAGE = Measure(
    "average",
    "average",
    f"mean of {', '.join(measure.name for measure in MEASURES if measure.in_average)}",
    unit="image",
    column=None,
    family=None,
    in_average=False,
    settings=tuple(name for measure in MEASURES if measure.in_average for name in measure.settings),
)
SHOWN = (*MEASURES, AVERAGE)  # in the order of every table
COLUMNS = tuple(measure for measure in SHOWN if measure.unit != "caption")  # of a narrow table: captions are not everywhere
PAIRED = tuple(measure for measure in MEASURES if measure.column is not None)  # with a value for every query, which pairs two recipes
GATED = {measure.family: measure for measure in MEASURES if measure.family}  # by the name that section promotion uses
MEASURE_OF = {measure.key: measure for measure in SHOWN}


def value_of(row: Mapping[str, Any], key: str) -> float | None:
    """A row's value of `family.measure`, or of a plain key such as `average`; None where it is absent or was not measured."""
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def known_value(row: Mapping[str, Any], key: str) -> float:
    """As `value_of`; ValueError where there is no value."""
    value = value_of(row, key)
    if value is None:
        raise ValueError(f"{key} of {row.get('recipe')} was not measured")
    return value


def percent(value: float) -> str:
    return f"{value:.1f}"


def signed(value: float) -> str:
    """One decimal with a true minus sign; what rounds to nothing is ±0.0."""
    if round(value, 1) == 0:
        return "±0.0"
    return f"{value:+.1f}".replace("-", "−")
