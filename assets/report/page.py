"""The page: one self-contained HTML file from the verdict, the rows, the drawings and the example queries. It computes no measure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from assets.report.examples import Answer, Query
from assets.report.inputs import TestSplit
from assets.report.measures import GATED, MEASURE_NAMES, MEASURES, RECIPE_MEANINGS, percent, signed, value_of
from assets.report.pictures import data_uri, thumbnail

TEMPLATE = "template.html.jinja"
LICENSE_PAGES = {  # SPDX identifier → where its text is read
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "MIT": "https://opensource.org/license/mit",
}
MARKS = {"better": "▲", "tie": "≈", "worse": "▼"}


@dataclass(frozen=True)
class Album:
    """The pictures that the page may show: encoded bytes by id, shown at up to `side` pixels."""

    test: TestSplit
    encoded: Mapping[str, bytes]
    side: int

    def picture(self, row: int, right: bool | None) -> dict[str, Any]:
        """One picture for the template; `right` is None for a query."""
        said = {None: "", True: "right: ", False: "wrong: "}[right]
        (identifier,), (credit,) = self.test.ids([row]), self.test.credits([row])
        return {
            "uri": data_uri(thumbnail(self.encoded[identifier], self.side)),
            "alt": f"{said}{self.test.names[row]}, picture by {credit.source}",
            "title": f"{self.test.names[row]} · {credit.short}",
            "right": right,
        }


def query_card(query: Query, album: Album) -> dict[str, Any]:
    """A query with a strip of hits for each recipe, and whom to credit for the pictures in it."""
    return {
        "name": query.name,
        "picture": None if query.row is None else album.picture(query.row, None),
        "strips": [
            {
                "recipe": recipe,
                "right": found.right,
                "total": len(found.hits),
                "tiles": [album.picture(hit.row, hit.right) for hit in found.hits],
                "note": first_right(found),
                "instead": found_instead(found, album.test),
            }
            for recipe, found in query.answers.items()
        ],
        "credits": sorted({credit.short for credit in album.test.credits(query.rows)}),
    }


def first_right(found: Answer) -> str:
    return "nothing right to find" if found.first_right is None else f"first right one at rank {found.first_right:,}"


def found_instead(found: Answer, test: TestSplit) -> str:
    """The class names of the wrong hits, the most frequent first."""
    counts = Counter(test.names[hit.row] for hit in found.hits if not hit.right)
    return " · ".join(f"{name} ×{count}" if count > 1 else name for name, count in counts.most_common(4))


def recipe_rows(rows: Sequence[Mapping[str, Any]], published: str) -> list[dict[str, Any]]:
    """The table's rows: every measure's value, its difference to base with a mark, and whether it is the column's best."""
    known = {m.key: [value for row in rows if (value := value_of(row, m.key)) is not None] for m in MEASURES}
    table = []
    for row in rows:
        cells = []
        for measure in MEASURES:
            value, difference = value_of(row, measure.key), row["confidence"]["against_base"].get(measure.key)
            interval = row["confidence"].get(measure.key)
            cells.append(
                {
                    "value": "–" if value is None else percent(value),
                    "best": value is not None and percent(value) == percent(max(known[measure.key])),
                    "interval": f"{percent(interval[0])}–{percent(interval[1])}" if interval else "",
                    "difference": outcome_view(difference) if difference and row["recipe"] != "base" else None,
                    "average": measure.key == "average",
                }
            )
        recipe = row["recipe"]
        table.append({"recipe": recipe, "meaning": RECIPE_MEANINGS[recipe], "published": recipe == published, "cells": cells})
    return table


def outcome_view(entry: Mapping[str, Any]) -> dict[str, str]:
    low, high = entry["interval"]
    return {
        "outcome": entry["outcome"],
        "mark": MARKS[entry["outcome"]],
        "points": signed(entry["difference"]),
        "interval": f"{signed(low)} to {signed(high)}",
    }


def family_views(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": MEASURE_NAMES[key],
            "value": percent(verdict["families"][family]["value"]),
            "reference": percent(verdict["families"][family]["reference"]),
            **outcome_view(verdict["families"][family]),
        }
        for family, key in GATED.items()
        if family in verdict["families"]  # one that could not be judged is told among the reasons
    ]


def group_views(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **row,
            "before": percent(row["before"]),
            "after": percent(row["after"]),
            "left": percent(min(row["before"], row["after"])),
            "width": percent(abs(row["before"] - row["after"])),
            "difference": outcome_view(row["difference"]) if row["difference"] else None,
        }
        for row in scores
    ]


def linked(text: str) -> Markup:
    """The text with its web addresses as links."""
    parts = re.split(r"(https?://[^\s,;<>\"')]+)", text)
    return Markup("").join(
        Markup('<a href="{0}" rel="noopener noreferrer">{0}</a>').format(part) if position % 2 else escape(part)
        for position, part in enumerate(parts)
    )


def licence(identifier: str) -> Markup:
    """The licence's name, a link to its text where that is known."""
    address = LICENSE_PAGES.get(identifier)
    return Markup('<a href="{}" rel="noopener noreferrer license">{}</a>').format(address, identifier) if address else linked(identifier)


def render(**context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["linked"] = linked
    environment.filters["licence"] = licence
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment.get_template(TEMPLATE).render(**context)
