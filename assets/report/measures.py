"""What the report tells of a recipe: the measures with their names for people, and the families of the gate. Computing is elsewhere.

Percent and percentage points throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RECIPE_MEANINGS = {
    "base": "the CLIP to start from",
    "gpr": "image tower tuned on class labels (GPR-FT)",
    "gpr_rea": "gpr, then the text tower realigned (2SFT)",
    "mcip": "image tower tuned on class labels and pseudo-captions",
    "mcip_rea": "mcip, then the text tower realigned",
}


@dataclass(frozen=True)
class Measure:
    key: str  # family.measure, as in metrics.json
    name: str
    meaning: str
    settings: tuple[str, ...]  # of section evaluation, on which the value depends besides precision


MEASURES = (
    Measure("image_to_image.map", "image→image mAP", "every test image searches all the others; mean average precision", ()),
    Measure("image_to_image.recall_at_1", "image→image R@1", "share of test images whose nearest other image is of their class", ()),
    Measure("knn.accuracy", "k-NN", "class voted by the nearest other test images", ("knn_k", "knn_temperature")),
    Measure("zero_shot.accuracy", "zero-shot", "class whose name is nearest to the image", ("prompts",)),
    Measure("text_to_image.recall_at_5", "text→image R@5", "every class name searches the images; recall among the first five", ()),
    Measure("text_to_image.caption_recall_at_5", "caption→image R@5", "every caption searches the images; recall among the first five", ()),
    Measure("average", "average", "mean of mAP, k-NN, zero-shot and text→image R@5", ("knn_k", "knn_temperature", "prompts")),
)
COLUMNS = tuple(measure.key for measure in MEASURES if "caption" not in measure.key)  # of a narrow table; captions are not everywhere
FAMILIES = {  # the measure that stands for a family in the gate
    "image_to_image": "image_to_image.map",
    "knn": "knn.accuracy",
    "zero_shot": "zero_shot.accuracy",
    "text_to_image": "text_to_image.recall_at_5",
}
GATED = FAMILIES | {"caption_to_image": "text_to_image.caption_recall_at_5"}  # what promotion may name
MEASURE_NAMES = {measure.key: measure.name for measure in MEASURES}


def value_of(row: Mapping[str, Any], key: str) -> float | None:
    """A row's value of `family.measure`, or of a plain key such as `average`; None where it is absent or could not be taken (captions
    without any)."""
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def known_value(row: Mapping[str, Any], key: str) -> float:
    value = value_of(row, key)
    if value is None:
        raise ValueError(f"{key} of {row.get('recipe')} was not taken")
    return value


def percent(value: float) -> str:
    return f"{value:.1f}"


def signed(value: float) -> str:
    """One decimal with a true minus sign; what rounds to nothing is ±0.0."""
    if round(value, 1) == 0:
        return "±0.0"
    return f"{value:+.1f}".replace("-", "−")
