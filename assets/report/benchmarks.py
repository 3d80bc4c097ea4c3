"""Section «The paper's Table 1»: the benchmarks that were measured, in its columns and beside its rows. Measuring is evaluation's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from assets import artifacts
from assets.measures import FAMILY_NAMES, GATED, percent
from assets.report.paper import AVERAGE_NOTES, PAPER, PAPER_AVERAGES
from assets.table_1 import COLUMNS, Column

NOT_MEASURED = "not measured"
TEXT = "text_to_image"  # the family of which the paper measures R@5 alone


def read_benchmarks(recipes: Iterable[str]) -> dict[str, Any]:
    """benchmarks.json of every recipe that has one."""
    files = {recipe: artifacts.evaluation_dir(recipe) / "benchmarks.json" for recipe in recipes}
    return {recipe: artifacts.read_json(file) for recipe, file in files.items() if file.exists()}


def table_1_view(found: Mapping[str, Any], recipes: Iterable[str]) -> dict[str, Any]:
    """For the page: each recipe's row measured here and its row in the paper, if any; the benchmarks left out; whether any was measured.

    `found`: benchmarks.json by recipe.
    """
    ours = {recipe: [_value(each, column) for column in COLUMNS] for recipe, each in found.items()}
    measured = any(value is not None for values in ours.values() for value in values)
    families = dict.fromkeys(column.family for column in COLUMNS)
    rows, notes = [], []
    for recipe in recipes if measured else ():
        if recipe in ours:
            average = found[recipe]["table_1"].get("average")
            cells = [NOT_MEASURED if value is None else percent(value) for value in ours[recipe]]
            rows.append({"recipe": recipe, "of": "here", "cells": cells, "average": "–" if average is None else percent(average)})
        if recipe in PAPER:
            paper = [percent(value) for value in PAPER[recipe]]
            rows.append({"recipe": recipe, "of": "paper", "cells": paper, "average": percent(PAPER_AVERAGES[recipe])})
            notes += [AVERAGE_NOTES[recipe]] if recipe in AVERAGE_NOTES else []
    return {
        "measured": measured,
        "groups": [
            {
                "name": GATED[family].name if family == TEXT else FAMILY_NAMES[family],
                "columns": sum(column.family == family for column in COLUMNS),
            }
            for family in families
        ],
        "columns": [column.name for column in COLUMNS],
        "rows": rows,
        "notes": notes,
        "skipped": sorted({name for each in found.values() for name in each["skipped"]}),
        "incomplete": sorted({(name, why) for each in found.values() for name, why in each.get("incomplete", {}).items()}),
    }


def _value(found: Mapping[str, Any], column: Column) -> float | None:
    value: float | None = found["table_1"].get(column.family, {}).get(column.key)
    return value
