"""The gate: what holds a recipe back and what lets it through."""

from __future__ import annotations

from typing import Any

import pytest

from assets.measures import AVERAGED, GATED
from assets.metrics.bootstrap import PairedDifference
from assets.params import Promotion
from assets.promotion.gate import ALWAYS_JUDGED, AgainstChampion, decide, judge

ALL = dict.fromkeys(ALWAYS_JUDGED, 0.0)
BETTER, TIE, WORSE = PairedDifference(4, 2, 6), PairedDifference(-0.5, -2, 1), PairedDifference(-3, -5, -1)


def promotion(**changes: Any) -> Promotion:
    return Promotion(
        **(
            {"recipe": "mcip_rea", "pairs": [], "against": "base", "seed": 0, "bootstrap_samples": 100}
            | {"must_not_fall": ALL, "must_rise": {}, "override_reason": None}
            | changes
        )
    )


def row(recipe: str, value: float, spread: float = 1.0) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "image_to_image": {"map": value},
        "knn": {"accuracy": value},
        "zero_shot": {"accuracy": value},
        "text_to_image": {"recall_at_5": value, "caption_recall_at_5": None},
        "confidence": {key: [value - spread, value + spread] for key in AVERAGED},
    }


def verdict(settings: Promotion | None = None, **differences: PairedDifference | None) -> dict[str, Any]:
    every = dict.fromkeys(ALWAYS_JUDGED, BETTER) | differences
    missing = {family: GATED[family].key.split(".") for family, difference in every.items() if difference is None}
    published = row("mcip_rea", 40)
    for family, measure in missing.values():
        published[family] = published[family] | {measure: None}
    return judge(published, row("base", 36), "base", every, settings or promotion(), [], itself=False)


def test_better_everywhere_is_published():
    found = verdict()
    assert found["decision"] == "publish"
    assert found["recipe"] == "mcip_rea"
    assert found["against"] == "base"
    assert found["override_reason"] is None
    assert found["families"]["knn"] == {"value": 40.0, "reference": 36.0, "difference": 4, "interval": [2, 6], "outcome": "better"}
    assert "k-NN: 40.0 against 36.0 of base, +4.0 [+2.0, +6.0]: better." in found["reasons"]
    assert found["must_not_fall"]["knn"] == {"tolerance": 0.0, "fell": False}


def test_a_tie_is_no_fall():
    found = verdict(text_to_image=TIE)
    assert found["families"]["text_to_image"]["outcome"] == "tie"
    assert found["decision"] == "publish"


@pytest.mark.parametrize("family", list(ALL))
def test_one_family_that_fell_holds_the_recipe_back(family):
    found = verdict(**{family: WORSE})
    assert found["decision"] == "hold"
    assert found["families"][family]["outcome"] == "worse"
    assert [name for name, entry in found["must_not_fall"].items() if entry["fell"]] == [family]
    assert found["reasons"][-1].endswith("must not fall, but fell.")


def test_a_family_that_may_fall_does_not_hold_it_back():
    found = verdict(promotion(must_not_fall={"image_to_image": 0.0}), zero_shot=WORSE)
    assert found["decision"] == "publish"
    assert found["reasons"][-1] == "zero-shot fell, which promotion.must_not_fall allows."


def test_each_family_has_its_own_tolerance_and_falls_where_its_whole_interval_is_beyond():
    settings = promotion(must_not_fall={"knn": 0.9, "zero_shot": 1.0})
    found = verdict(settings, knn=WORSE, zero_shot=WORSE)  # −5 … −1 lies below −0.9, not below −1
    assert found["decision"] == "hold"
    assert found["must_not_fall"] == {"knn": {"tolerance": 0.9, "fell": True}, "zero_shot": {"tolerance": 1.0, "fell": False}}
    assert found["reasons"][-1] == "k-NN (by more than 0.9 points allowed) must not fall, but fell."
    within = verdict(settings, zero_shot=WORSE)
    assert within["decision"] == "publish"
    assert within["reasons"][-1] == "The fall of zero-shot (tolerance 1 points) stays within what promotion.must_not_fall allows."


def test_what_must_rise_rises_with_its_whole_interval():
    settings = promotion(must_rise={"image_to_image": 1.9, "knn": 0.0})
    found = verdict(settings)
    assert found["decision"] == "publish"
    assert found["must_rise"] == {"image_to_image": {"points": 1.9, "rose": True}, "knn": {"points": 0.0, "rose": True}}
    assert found["reasons"][-1] == "Nothing that must not fall is worse. image→image mAP and k-NN rose as required."


@pytest.mark.parametrize(("points", "difference"), [(2.0, BETTER), (0.0, TIE), (0.0, WORSE), (0.0, PairedDifference(1, 0, 2))])
def test_what_must_rise_and_did_not_holds_the_recipe_back(points, difference):
    found = verdict(promotion(must_not_fall={}, must_rise={"knn": points}), knn=difference)
    assert found["decision"] == "hold"
    assert found["must_rise"]["knn"]["rose"] is False
    said = " (by more than 2 points)" if points else ""
    assert found["reasons"][-1] == f"k-NN{said} must rise, but not beyond doubt."


def test_the_reference_itself_need_not_rise():
    settings, same = promotion(must_rise={"image_to_image": 1.0}), dict.fromkeys(ALWAYS_JUDGED, PairedDifference(0, 0, 0))
    found = judge(row("base", 36), row("base", 36), "base", same, settings, [], itself=True)
    assert (found["decision"], found["must_rise"]) == ("publish", {})
    assert found["reasons"][-2:] == ["It is the reference itself, so nothing has to rise.", "Nothing that must not fall is worse."]
    retrained = judge(
        row("gpr", 36.5), row("gpr", 36), "champion", same, settings, [], itself=False
    )  # a recipe of that name, but another model
    assert retrained["decision"] == "hold"


@pytest.mark.parametrize("settings", [promotion(), promotion(must_not_fall={}, must_rise={"zero_shot": 0.0})])
def test_a_family_that_was_not_measured_cannot_be_judged_and_holds_the_recipe_back(settings):
    found = verdict(settings, zero_shot=None)
    assert found["decision"] == "hold"
    assert "zero_shot" not in found["families"]
    assert found["unjudged"] == {"zero_shot": "not measured for mcip_rea, so it cannot be compared"}
    assert "zero-shot: not measured for mcip_rea, so it cannot be compared." in found["reasons"]
    assert found["reasons"][-1] == "zero-shot cannot be judged, and promotion names it."
    assert {entry.get("fell", entry.get("rose")) for entry in (found["must_not_fall"] | found["must_rise"]).values()} <= {None, False}


def test_a_family_that_was_not_measured_and_is_not_named_holds_nothing_back():
    found = verdict(promotion(must_not_fall={"knn": 0.0}), zero_shot=None)
    assert found["decision"] == "publish"
    assert found["unjudged"].keys() == {"zero_shot"}


def test_the_last_reason_names_everything_that_holds_it_back():
    found = verdict(promotion(must_rise={"image_to_image": 3.0}), knn=WORSE, zero_shot=None)
    assert found["reasons"][-1] == (
        "k-NN must not fall, but fell. image→image mAP (by more than 3 points) must rise, but not beyond doubt."
        " zero-shot cannot be judged, and promotion names it."
    )


@pytest.mark.parametrize(
    ("differences", "settings"),
    [({"zero_shot": WORSE}, {}), ({"zero_shot": None}, {}), ({"zero_shot": TIE}, {"must_rise": {"zero_shot": 0.0}})],
    ids=["fallen", "missing", "not risen"],
)
def test_an_override_publishes_and_is_recorded(differences, settings):
    found = verdict(promotion(override_reason="zero-shot is not used here", **settings), **differences)
    assert found["decision"] == "publish"
    assert found["override_reason"] == "zero-shot is not used here"
    assert found["reasons"][-1] == "Published all the same: zero-shot is not used here"


def test_an_override_without_an_objection_is_not_recorded():
    assert verdict(promotion(override_reason="just in case"))["override_reason"] is None


def test_a_blank_override_is_none():
    assert verdict(promotion(override_reason=" "), knn=WORSE)["decision"] == "hold"


def against(value: float, difference: PairedDifference, itself: bool = False) -> AgainstChampion:
    """A champion of this value, and how far the judged recipe is from it."""
    paired = dict.fromkeys(AVERAGED, difference)
    return AgainstChampion(row("champion", value), row("mcip", 40), paired, ["The champion is gpr."], itself)


def test_without_a_champion_the_reference_is_base_and_the_verdict_says_so():
    found = decide(row("mcip", 40), row("base", 36), {}, None, promotion(against="champion"))
    assert found["against"] == "base"
    assert "no champion yet" in found["reasons"][0]


def test_a_champion_is_the_reference_when_asked_for():
    champion = against(40.2, PairedDifference(-0.2, -0.3, -0.1))  # too little to be seen by overlap
    assert decide(row("mcip", 40), row("base", 36), {}, champion, promotion())["against"] == "base"
    found = decide(row("mcip", 40), row("base", 36), {}, champion, promotion(against="champion"))
    assert (found["against"], found["decision"], found["reasons"][0]) == ("champion", "hold", "The champion is gpr.")
    assert found["families"]["knn"]["interval"] == [-0.3, -0.1]


def test_the_champion_s_own_model_need_not_rise():
    asked = promotion(against="champion", must_rise={"knn": 1.0})
    for itself, decision in ((True, "publish"), (False, "hold")):
        champion = against(40, PairedDifference(0, 0, 0), itself)
        assert decide(row("mcip", 40), row("base", 36), {}, champion, asked)["decision"] == decision


def test_a_champion_without_a_measure_holds_back_and_is_named():
    incomplete = against(30, BETTER)
    del incomplete.row["knn"]
    asked = promotion(against="champion")
    found = decide(row("mcip", 40), row("base", 36), {}, incomplete, asked)
    assert found["decision"] == "hold"
    assert found["unjudged"] == {"knn": "not measured for champion, so it cannot be compared"}
    allowed = decide(row("mcip", 40), row("base", 36), {}, incomplete, asked.model_copy(update={"override_reason": "k-NN is new"}))
    assert (allowed["decision"], allowed["override_reason"]) == ("publish", "k-NN is new")


def test_captions_are_judged_where_promotion_names_them():
    unnamed = decide(row("mcip", 40), row("base", 36), {}, None, promotion())
    assert unnamed["families"].keys() == set(ALWAYS_JUDGED)
    asked = promotion(must_not_fall={"caption_to_image": 0.0})
    found = decide(row("mcip", 40), row("base", 36), {}, None, asked)
    assert (found["decision"], found["unjudged"].keys()) == ("hold", {"caption_to_image"})
    captioned = [row("mcip", 40), row("base", 36)]
    for each, value in zip(captioned, (20, 30), strict=True):
        each["text_to_image"]["caption_recall_at_5"] = value
        each["confidence"][GATED["caption_to_image"].key] = [value - 1, value + 1]
    fell = decide(*captioned, {}, None, asked)
    assert (fell["decision"], fell["families"]["caption_to_image"]["outcome"]) == ("hold", "worse")
