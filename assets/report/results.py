"""Section «The recipes side by side»: every recipe's values, intervals and differences to base, as promotion found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assets.measures import AVERAGE, COLUMNS, SHOWN, percent, signed, value_of
from assets.recipes import BASE

MARKS = {"better": "▲", "tie": "≈", "worse": "▼"}


def recipe_rows(rows: Sequence[Mapping[str, Any]], published: str, about: Mapping[str, str]) -> list[dict[str, Any]]:
    """The table's rows: every measure's value, its difference to base with a mark, and whether it is the column's best."""
    known = {m.key: [value for row in rows if (value := value_of(row, m.key)) is not None] for m in SHOWN}
    table = []
    for row in rows:
        cells = []
        for measure in SHOWN:
            value, difference = value_of(row, measure.key), row["confidence"]["against_base"].get(measure.key)
            interval = row["confidence"].get(measure.key)
            cells.append(
                {
                    "value": "–" if value is None else percent(value),
                    "best": value is not None and percent(value) == percent(max(known[measure.key])),
                    "interval": f"{percent(interval[0])}–{percent(interval[1])}" if interval else "",
                    "difference": outcome_view(difference) if difference and row["recipe"] != BASE else None,
                    "average": measure.key == AVERAGE.key,
                }
            )
        recipe = row["recipe"]
        table.append(
            {
                "recipe": recipe,
                "meaning": about[recipe] if recipe in about else champion_meaning(row["champion"]),
                "published": recipe == published,
                "cells": cells,
            }
        )
    return table


def champion_meaning(champion: Mapping[str, Any]) -> str:
    said = f"the champion: {champion['recipe']}, as `make promote` kept it, on today's test pictures"
    seen = len(champion["seen"])
    return said + (f"; on {champion['classes']:,} classes, without those of {seen:,} families that it was trained on" if seen else "")


def outcome_view(entry: Mapping[str, Any]) -> dict[str, str]:
    """A difference for a cell: its outcome with a mark, points and interval."""
    low, high = entry["interval"]
    return {
        "outcome": entry["outcome"],
        "mark": MARKS[entry["outcome"]],
        "points": signed(entry["difference"]),
        "interval": f"{signed(low)} to {signed(high)}",
    }


def pair_rows(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each pair of recipes, with the first one's difference to the second by measure."""
    return [
        {
            "recipe": pair["recipe"],
            "against": pair["against"],
            "cells": [outcome_view(entry) if (entry := pair["differences"].get(measure.key)) else None for measure in SHOWN],
        }
        for pair in pairs
    ]


def results_view(metrics: Mapping[str, Any], published: str, about: Mapping[str, str]) -> dict[str, Any]:
    """`metrics` of metrics.json; `about` says of every recipe what it is."""
    return {
        "measures": SHOWN,
        "columns": COLUMNS,
        "table": recipe_rows(metrics["rows"], published, about),
        "pairs": pair_rows(metrics["pairs"]),
    }
