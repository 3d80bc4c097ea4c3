"""The gate before publishing: is the recipe worse than its reference in a family that must not fall?

Pure: rows and differences in, verdict out. Where they come from is the stage's concern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assets.artifacts import CHAMPION
from assets.errors import UserError
from assets.metrics import PairedDifference
from assets.params import Promotion
from assets.report.comparison import difference_json, overlap_difference
from assets.report.measures import FAMILIES, MEASURE_NAMES, known_value, percent, signed


def choose_reference(
    published: Mapping[str, Any], base: Mapping[str, Any], champion: Mapping[str, Any], promotion: Promotion
) -> tuple[str, Mapping[str, Any], str | None]:
    """("base" or "champion", its row, a sentence where the choice needs one). Without a champion the reference is base."""
    if promotion.against == "base":
        return "base", base, None
    if champion.get("recipe") is None:
        return "base", base, f"There is no champion yet ({CHAMPION} names none), so the reference is base."
    row = champion.get("metrics") or {}
    try:
        for key in FAMILIES.values():
            overlap_difference(published, row, key)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{CHAMPION} names {champion['recipe']!r} without {key} or its interval, so nothing can be compared with it."
            " Set promotion.against to base, or restore the file from git."
        ) from None
    return "champion", row, f"The champion is {champion['recipe']}; its intervals and the recipe's are compared by overlap."


def judge(
    published: Mapping[str, Any],
    reference: Mapping[str, Any],
    against: str,
    differences: Mapping[str, PairedDifference],
    promotion: Promotion,
    note: str | None,
) -> dict[str, Any]:
    """The verdict on the recipe of row `published`, as written to verdict.json. `differences` has one for each family.

    A family of `must_not_fall` holds the recipe back when the whole interval of its difference lies below −tolerance. The override
    reason then publishes it all the same, and is recorded; where nothing fell it is not used.
    """
    families: dict[str, Any] = {}
    fallen = []
    for family, key in FAMILIES.items():
        difference = differences[family]
        families[family] = {"value": known_value(published, key), "reference": known_value(reference, key), **difference_json(difference)}
        if family in promotion.must_not_fall and difference.high < -promotion.tolerance:
            fallen.append(family)
    override = (promotion.override_reason or "").strip() or None  # a blank sentence is no reason
    held_back = bool(fallen) and override is None

    reasons = [note] if note else []
    reasons += [_sentence(family, families[family], against) for family in FAMILIES]
    if fallen:
        allowed = f" by more than the {promotion.tolerance:g} points allowed" if promotion.tolerance else ""
        reasons.append(f"{_listed(fallen)} must not fall and did{allowed}.")
    elif unguarded := [f for f in FAMILIES if families[f]["outcome"] == "worse" and f not in promotion.must_not_fall]:
        reasons.append(f"{_listed(unguarded)} fell, which promotion.must_not_fall allows.")
    elif any(entry["outcome"] == "worse" for entry in families.values()):
        reasons.append(f"What fell stays within the tolerance of {promotion.tolerance:g} points.")
    else:
        reasons.append("Nothing that must not fall is worse.")
    if fallen and override:
        reasons.append(f"Published all the same: {override}")
    return {
        "recipe": published["recipe"],
        "against": against,
        "decision": "hold" if held_back else "publish",
        "reasons": reasons,
        "families": families,
        "override_reason": override if fallen else None,
    }


def _sentence(family: str, entry: Mapping[str, Any], against: str) -> str:
    low, high = entry["interval"]
    return (
        f"{MEASURE_NAMES[FAMILIES[family]]}: {percent(entry['value'])} against {percent(entry['reference'])} of {against},"
        f" {signed(entry['difference'])} [{signed(low)}, {signed(high)}]: {entry['outcome']}."
    )


def _listed(families: Sequence[str]) -> str:
    names = [MEASURE_NAMES[FAMILIES[family]] for family in families]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
