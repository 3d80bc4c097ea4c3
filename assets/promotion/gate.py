"""The gate before publishing: did a family fall that must not, did one not rise that must, or can one not be judged?

Rows and differences in, verdict out. Where they come from is the stage's concern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assets.artifacts import CHAMPION
from assets.measures import GATED, known_value, percent, signed, value_of
from assets.metrics.bootstrap import PairedDifference
from assets.params import Promotion
from assets.promotion.comparison import difference_json, gated_differences

ALWAYS_JUDGED = [family for family, measure in GATED.items() if measure.in_average]  # the others where promotion names them


@dataclass(frozen=True)
class AgainstChampion:
    """What a verdict against the champion needs: its row and the judged recipe's over the same queries, and their differences by measure.

    `notes` say what was compared; `itself`: the judged recipe's model is the champion's.
    """

    row: Mapping[str, Any]
    published: Mapping[str, Any]
    differences: Mapping[str, PairedDifference]
    notes: list[str]
    itself: bool


def decide(
    published: Mapping[str, Any],
    base: Mapping[str, Any],
    with_base: Mapping[str, PairedDifference],
    champion: AgainstChampion | None,
    promotion: Promotion,
) -> dict[str, Any]:
    """The verdict on the recipe of row `published`, against base or the champion as `promotion` says; without a champion against base.

    `with_base`: its differences to base by measure.
    """
    notes: list[str] = []
    against, reference, paired = "base", base, with_base
    itself = published["recipe"] == base["recipe"]
    if promotion.against == "champion":
        if champion is None:
            notes = [f"There is no champion yet ({CHAMPION} names none), so the reference is base."]
        else:
            against, published, reference, paired = "champion", champion.published, champion.row, champion.differences
            itself, notes = champion.itself, champion.notes
    named = [family for family in GATED if family in promotion.must_not_fall or family in promotion.must_rise]
    differences = gated_differences(published, reference, paired, dict.fromkeys([*ALWAYS_JUDGED, *named]))
    return judge(published, reference, against, differences, promotion, notes, itself=itself)


def judge(
    published: Mapping[str, Any],
    reference: Mapping[str, Any],
    against: str,
    differences: Mapping[str, PairedDifference | None],
    promotion: Promotion,
    notes: Sequence[str],
    *,
    itself: bool,
) -> dict[str, Any]:
    """The verdict as written to verdict.json.

    `differences` by family, None where it cannot be judged; `notes` become the first reasons; `itself`: the reference is this very model.

    Three things hold the recipe back: a family of `must_not_fall` whose whole interval lies below −(its tolerance); a family of
    `must_rise` whose interval does not lie wholly above its points; and a family of either that cannot be judged. A recipe that is
    the reference itself need not rise. With an override reason the recipe is published all the same and the reason is recorded; where
    nothing holds the recipe back, the reason is not used.
    """
    families: dict[str, Any] = {}
    unjudged: dict[str, str] = {}
    for family, difference in differences.items():
        key = GATED[family].key
        if difference is None:
            unjudged[family] = _why_unjudged(published, reference, against, key)
            continue
        families[family] = {"value": known_value(published, key), "reference": known_value(reference, key), **difference_json(difference)}
    judged = {family: difference for family, difference in differences.items() if difference is not None}
    not_fall = {
        family: {"tolerance": tolerance, "fell": judged[family].high < -tolerance if family in judged else None}
        for family, tolerance in promotion.must_not_fall.items()
    }
    rise = {
        family: {"points": points, "rose": judged[family].low > points if family in judged else None}
        for family, points in ({} if itself else promotion.must_rise).items()
    }
    fallen = [family for family, entry in not_fall.items() if entry["fell"]]
    not_risen = [family for family, entry in rise.items() if entry["rose"] is False]
    unknown = [family for family in unjudged if family in not_fall or family in rise]
    override = (promotion.override_reason or "").strip() or None  # a blank sentence is no reason
    objections = bool(fallen or not_risen or unknown)

    reasons = [*notes, *(_sentence(family, entry, against) for family, entry in families.items())]
    reasons += [f"{GATED[family].name}: {why}." for family, why in unjudged.items()]
    if itself and promotion.must_rise:
        reasons.append("It is the reference itself, so nothing has to rise.")
    decisive = []
    if fallen:
        decisive.append(f"{_listed(fallen, promotion.must_not_fall, 'by more than {} allowed')} must not fall, but fell.")
    if not_risen:
        decisive.append(f"{_listed(not_risen, promotion.must_rise, 'by more than {}')} must rise, but not beyond doubt.")
    if unknown:
        decisive.append(f"{_listed(unknown)} cannot be judged, and promotion names it.")
    if not objections:
        decisive.append(_why_published(families, promotion, list(rise)))
    reasons.append(" ".join(decisive))
    if objections and override:
        reasons.append(f"Published all the same: {override}")
    return {
        "recipe": published["recipe"],
        "against": against,
        "decision": "hold" if objections and override is None else "publish",
        "reasons": reasons,
        "families": families,
        "unjudged": unjudged,
        "must_not_fall": not_fall,
        "must_rise": rise,
        "override_reason": override if objections else None,
    }


def _why_published(families: Mapping[str, Any], promotion: Promotion, risen: Sequence[str]) -> str:
    worse = [family for family, entry in families.items() if entry["outcome"] == "worse"]
    rose = f" {_listed(risen)} rose as required." if risen else ""
    if unguarded := [family for family in worse if family not in promotion.must_not_fall]:
        return f"{_listed(unguarded)} fell, which promotion.must_not_fall allows.{rose}"
    if worse:
        return (
            f"The fall of {_listed(worse, promotion.must_not_fall, 'tolerance {}')} stays within what promotion.must_not_fall allows.{rose}"
        )
    return f"Nothing that must not fall is worse.{rose}"


def _why_unjudged(published: Mapping[str, Any], reference: Mapping[str, Any], against: str, key: str) -> str:
    without = [name for name, row in ((published["recipe"], published), (against, reference)) if value_of(row, key) is None]
    if without:
        return f"not measured for {' and '.join(dict.fromkeys(without))}, so it cannot be compared"
    return f"an interval is missing for {published['recipe']} or {against}, so it cannot be compared"


def _sentence(family: str, entry: Mapping[str, Any], against: str) -> str:
    low, high = entry["interval"]
    return (
        f"{GATED[family].name}: {percent(entry['value'])} against {percent(entry['reference'])} of {against},"
        f" {signed(entry['difference'])} [{signed(low)}, {signed(high)}]: {entry['outcome']}."
    )


def _listed(families: Sequence[str], points: Mapping[Any, float] | None = None, said: str = "") -> str:
    """Names for a sentence, each with its points in the words of `said` where params gives it points other than 0."""
    names = []
    for family in families:
        name = GATED[family].name
        names.append(f"{name} ({said.format(f'{points[family]:g} points')})" if points and points.get(family) else name)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
