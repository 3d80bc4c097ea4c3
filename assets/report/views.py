"""Numbers and names as the templates show them: the headline, tables, map, funnel. It computes no measure and draws nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from assets.report.embedding_map import EXTENT, abreast
from assets.report.health import HEALTH
from assets.report.inputs import TestSplit
from assets.report.measures import GATED, MEASURE_NAMES, MEASURES, RECIPE_MEANINGS, percent, signed, value_of

FAMILY_NAMES = {
    "image_to_image": "image→image",
    "knn": "k-NN",
    "zero_shot": "zero-shot",
    "text_to_image": "text→image",
    "caption_to_image": "caption→image",
}
GROUP_COLORS = 9  # --group-0 … of page.css; the smaller groups share the next one
MARKS = {"better": "▲", "tie": "≈", "worse": "▼"}


def headline(verdict: Mapping[str, Any], against: str) -> str:
    """The decision in one sentence: on how many families better, where a tie, where worse, and so what to do."""
    by_outcome: dict[str, list[str]] = {"better": [], "tie": [], "worse": []}
    for family, entry in verdict["families"].items():
        by_outcome[entry["outcome"]].append(FAMILY_NAMES[family])
    better, tie, worse, total = by_outcome["better"], by_outcome["tie"], by_outcome["worse"], len(verdict["families"])
    said = [f"better than {against} on {len(better)} of {total} families"] if better else []
    if tie and len(tie) == total:
        said.append(f"level with {against} on all {total} families")
    elif tie:
        said.append(f"a tie on {listed(tie)}" if better else f"level with {against} on {listed(tie)}")
    if worse:
        said.append(f"worse on {listed(worse)}" if said else f"worse than {against} on {listed(worse)}")
    if verdict["unjudged"]:
        said.append(f"not judged on {listed([FAMILY_NAMES[family] for family in verdict['unjudged']])}")
    decision = "publish, overriding the gate" if verdict["override_reason"] else verdict["decision"]
    return f"{verdict['recipe']} is {', '.join(said)}: {decision}"


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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


def map_view(places: Mapping[str, np.ndarray], rows: Sequence[int], test: TestSplit) -> dict[str, Any]:
    """What the page's script draws the map from: by image its place in each space, its class and its source; by class its group."""
    labels, groups = test.labels[list(rows)], test.rows["group"].take(list(rows)).to_pylist()
    credited = [test.credits([row])[0].short for row in rows]
    sizes = Counter(group for group in groups if group)
    shown = [group for group, _ in sorted(sizes.items(), key=lambda each: (-each[1], each[0]))]
    colored, others = shown[:GROUP_COLORS], shown[GROUP_COLORS:]
    if others or (len(sizes) and None in groups):
        colored = [*colored, "others" if shown else ""]
    number_of = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    group_of = {
        label: colored.index(group) if group in colored else max(0, len(colored) - 1) for label, group in zip(labels, groups, strict=True)
    }
    name_of = {label: test.names[row] for label, row in zip(labels, rows, strict=True)}
    sources = sorted(set(credited))
    return {
        "spaces": list(places),
        "extent": EXTENT,
        "abreast": abreast(len(rows)),
        "groups": colored,
        "classes": [[name_of[label], group_of[label]] for label in number_of],
        "sources": sources,
        "points": [
            [*(int(each) for place in places.values() for each in place[position]), number_of[label], sources.index(credit)]
            for position, (label, credit) in enumerate(zip(labels, credited, strict=True))
        ],
    }


def health_rows(found: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
    return [
        {
            "name": measure.name,
            "meaning": measure.meaning,
            "cells": [
                "–" if (value := values[measure.key]) is None else f"{value:.{measure.digits}f}".replace("-", "−")
                for values in found.values()
            ],
        }
        for measure in HEALTH
    ]


def metric_changes(
    row: Mapping[str, Any], reference: Mapping[str, Any], verdict: Mapping[str, Any], unlike: Collection[str]
) -> list[dict[str, Any]]:
    """Every measure of the published row beside the reference's, as `dvc metrics diff` prints them, and an outcome where it is judged.

    `unlike`: measures whose two values are not comparable, so that their difference means nothing.
    """
    judged = {GATED[family]: entry for family, entry in verdict["families"].items()}
    if verdict["against"] == "base":
        judged = dict(row["confidence"]["against_base"]) | judged
    changes = []
    for measure in MEASURES:
        before, after = value_of(reference, measure.key), value_of(row, measure.key)
        entry = judged.get(measure.key)
        changes.append(
            {
                "name": measure.name,
                "before": "–" if before is None else percent(before),
                "after": "–" if after is None else percent(after),
                "points": "–" if before is None or after is None or measure.key in unlike else signed(after - before),
                "judged": outcome_view(entry) if entry else None,
            }
        )
    return changes


def funnel_view(rejected: Sequence[tuple[str, int]], splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Read, kept, rejected by reason, and the splits with their share of what was kept; percent of what was read."""
    kept, dropped = sum(split["images"] for split in splits), sum(count for _, count in rejected)
    read = kept + dropped
    return {
        "read": read,
        "kept": kept,
        "rejected": [
            {"reason": reason.replace("_", " "), "images": count, "share": f"{100 * count / read:.2g}"} for reason, count in rejected
        ],
        "dropped": dropped,
        "splits": [{**split, "share": percent(100 * split["images"] / kept)} for split in splits],
    }
