"""The head of the page: what was decided on which recipe against what, in one sentence, and by family. The gate itself is promotion's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assets.measures import FAMILY_NAMES, GATED, SHOWN, percent, signed, value_of
from assets.recipes import BASE, CHAMPION
from assets.report.results import outcome_view


def decision_view(verdict: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], champion: Mapping[str, Any], about: str) -> dict[str, Any]:
    """`rows` of metrics.json; `about`: what the judged recipe is."""
    row_of = {row["recipe"]: row for row in rows}
    published, against_base = verdict["recipe"], verdict["against"] == BASE
    against = BASE if against_base else f"the champion ({champion['recipe']})"
    reference = row_of[BASE if against_base else CHAMPION]
    return {
        "verdict": verdict,
        "headline": headline(verdict, against),
        "families": family_views(verdict),
        "published": published,
        "meaning": about,
        "against": against,
        "metric_changes": metric_changes(row_of[published], reference, verdict),
    }


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
    """Names for a sentence: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def family_views(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The judged families, in the order of GATED."""
    return [
        {
            "name": measure.name,
            "value": percent(verdict["families"][family]["value"]),
            "reference": percent(verdict["families"][family]["reference"]),
            **outcome_view(verdict["families"][family]),
        }
        for family, measure in GATED.items()
        if family in verdict["families"]  # the reasons name those that could not be judged
    ]


def metric_changes(row: Mapping[str, Any], reference: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every measure of the published row beside the reference's, and its outcome where it is judged.

    A champion that has seen test classes has values over the others alone; of what is judged, so are then both values.
    """
    judged = {GATED[family].key: entry for family, entry in verdict["families"].items()}
    if verdict["against"] == BASE:
        judged = dict(row["confidence"]["against_base"]) | judged
    changes = []
    for measure in SHOWN:
        before, after = value_of(reference, measure.key), value_of(row, measure.key)
        entry = judged.get(measure.key)
        if entry and "reference" in entry:
            before, after = entry["reference"], entry["value"]
        changes.append(
            {
                "name": measure.name,
                "before": "–" if before is None else percent(before),
                "after": "–" if after is None else percent(after),
                "points": "–" if before is None or after is None else signed(after - before),
                "judged": outcome_view(entry) if entry else None,
            }
        )
    return changes
