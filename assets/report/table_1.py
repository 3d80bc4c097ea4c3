"""The fourteen columns of the paper's Table 1: the benchmarks that were measured, beside the paper's rows. Measuring is evaluation's.

Source: Schall, Barthel, Hezel, Jung, arXiv 2409.01936, Table 1; percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assets import artifacts
from assets.report.measures import percent


@dataclass(frozen=True)
class Column:
    family: str
    key: str
    name: str


GROUPS = {"image_to_image": "image→image", "knn": "k-NN", "zero_shot": "zero-shot", "text_to_image": "text→image R@5"}
COLUMNS = (
    Column("image_to_image", "gpr1200", "GPR1200"),
    Column("image_to_image", "instre", "INSTRE"),
    Column("image_to_image", "cub200", "CUB200"),
    Column("image_to_image", "roxford", "ROxford"),
    Column("knn", "imagenet_val", "IN-val"),
    Column("knn", "imagenet_sketch", "IN-Sketch"),
    Column("knn", "imagenet_a", "IN-A"),
    Column("knn", "fgvc_aircraft", "Aircraft"),
    Column("zero_shot", "imagenet_val", "IN-val"),
    Column("zero_shot", "imagenet_sketch", "IN-Sketch"),
    Column("zero_shot", "imagenet_a", "IN-A"),
    Column("zero_shot", "objectnet", "ObjectNet"),
    Column("text_to_image", "flickr30k", "Flickr30k"),
    Column("text_to_image", "coco", "COCO"),
)
PAPER = {  # ViT-L-14-336 of OpenAI, and what the authors made of it
    "base": (76.0, 77.5, 77.0, 43.4, 78.2, 52.7, 46.4, 51.3, 76.6, 61.0, 77.6, 72.0, 89.0, 61.7),
    "gpr": (87.1, 85.0, 88.2, 67.3, 84.2, 60.5, 61.2, 57.8, 74.5, 60.8, 76.2, 74.5, 84.9, 57.2),
    "gpr_rea": (86.7, 84.4, 87.9, 66.4, 83.8, 60.4, 60.9, 57.1, 77.2, 61.5, 77.9, 74.6, 89.8, 64.6),
    "mcip": (87.0, 84.8, 88.0, 67.4, 84.1, 60.4, 61.0, 57.7, 77.0, 61.1, 78.3, 74.5, 90.1, 65.6),
    "mcip_rea": (87.0, 84.8, 88.0, 67.4, 84.1, 60.4, 61.0, 57.7, 77.3, 61.6, 78.4, 74.6, 90.2, 66.1),
}
# As printed; the columns of gpr average 72.8, where the paper prints 68.4.
PAPER_AVERAGES = {"base": 67.2, "gpr": 68.4, "gpr_rea": 73.8, "mcip": 74.1, "mcip_rea": 74.2}
NOT_MEASURED = "not measured"


def read_benchmarks() -> dict[str, Any]:
    """benchmarks.json of every recipe that has one."""
    files = {recipe: artifacts.evaluation_dir(recipe) / "benchmarks.json" for recipe in artifacts.RECIPES}
    return {recipe: artifacts.read_json(file) for recipe, file in files.items() if file.exists()}


def table_1(found: Mapping[str, Any]) -> dict[str, Any]:
    """For the page: the rows measured here and the paper's, the benchmarks left out, and whether anything was measured at all."""
    ours = {recipe: [_value(each, column) for column in COLUMNS] for recipe, each in found.items()}
    measured = any(value is not None for values in ours.values() for value in values)
    rows = []
    for recipe in artifacts.RECIPES if measured else ():
        if recipe in ours:
            average = found[recipe]["table_1"].get("average")
            cells = [NOT_MEASURED if value is None else percent(value) for value in ours[recipe]]
            rows.append({"recipe": recipe, "of": "here", "cells": cells, "average": "–" if average is None else percent(average)})
        paper = [percent(value) for value in PAPER[recipe]]
        rows.append({"recipe": recipe, "of": "paper", "cells": paper, "average": percent(PAPER_AVERAGES[recipe])})
    return {
        "measured": measured,
        "groups": [{"name": name, "columns": sum(column.family == family for column in COLUMNS)} for family, name in GROUPS.items()],
        "columns": [column.name for column in COLUMNS],
        "rows": rows,
        "skipped": sorted({name for each in found.values() for name in each["skipped"]}),
        "incomplete": sorted({(name, why) for each in found.values() for name, why in each.get("incomplete", {}).items()}),
    }


def _value(found: Mapping[str, Any], column: Column) -> float | None:
    return found["table_1"].get(column.family, {}).get(column.key)
