"""The benchmarks that were measured, in the columns of the paper's Table 1 and beside its rows. Measuring is evaluation's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assets import artifacts
from assets.report.measures import percent
from assets.report.paper import PAPER, PAPER_AVERAGES
from assets.table_1 import COLUMNS, Column

GROUPS = {"image_to_image": "image→image", "knn": "k-NN", "zero_shot": "zero-shot", "text_to_image": "text→image R@5"}
NOT_MEASURED = "not measured"


def read_benchmarks() -> dict[str, Any]:
    """benchmarks.json of every recipe that has one."""
    files = {recipe: artifacts.evaluation_dir(recipe) / "benchmarks.json" for recipe in artifacts.RECIPES}
    return {recipe: artifacts.read_json(file) for recipe, file in files.items() if file.exists()}


def table_1_view(found: Mapping[str, Any]) -> dict[str, Any]:
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
