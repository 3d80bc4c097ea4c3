"""The gate: what holds a recipe back and what lets it through."""

from __future__ import annotations

from typing import Any

import pytest

from assets.errors import UserError
from assets.metrics import PairedDifference
from assets.params import Promotion
from assets.report.gate import choose_reference, judge
from assets.report.measures import FAMILIES

ALL = ["image_to_image", "knn", "zero_shot", "text_to_image"]
BETTER, TIE, WORSE = PairedDifference(4, 2, 6), PairedDifference(-0.5, -2, 1), PairedDifference(-3, -5, -1)


def promotion(**changes: Any) -> Promotion:
    return Promotion(**({"against": "base", "tolerance": 0.0, "must_not_fall": ALL, "override_reason": None} | changes))


def row(recipe: str, value: float, spread: float = 1.0) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "image_to_image": {"map": value},
        "knn": {"accuracy": value},
        "zero_shot": {"accuracy": value},
        "text_to_image": {"recall_at_5": value},
        "confidence": {key: [value - spread, value + spread] for key in FAMILIES.values()},
    }


def verdict(settings: Promotion | None = None, **differences: PairedDifference) -> dict[str, Any]:
    every = dict.fromkeys(FAMILIES, BETTER) | differences
    return judge(row("mcip_rea", 40), row("base", 36), "base", every, settings or promotion(), None)


def test_better_everywhere_is_published():
    found = verdict()
    assert found["decision"] == "publish"
    assert found["recipe"] == "mcip_rea"
    assert found["against"] == "base"
    assert found["override_reason"] is None
    assert found["families"]["knn"] == {"value": 40.0, "reference": 36.0, "difference": 4, "interval": [2, 6], "outcome": "better"}
    assert "k-NN: 40.0 against 36.0 of base, +4.0 [+2.0, +6.0]: better." in found["reasons"]


def test_a_tie_is_no_fall():
    found = verdict(text_to_image=TIE)
    assert found["families"]["text_to_image"]["outcome"] == "tie"
    assert found["decision"] == "publish"


@pytest.mark.parametrize("family", ALL)
def test_one_family_that_fell_holds_the_recipe_back(family):
    found = verdict(**{family: WORSE})
    assert found["decision"] == "hold"
    assert found["families"][family]["outcome"] == "worse"
    assert found["reasons"][-1].endswith("must not fall and did.")


def test_a_family_that_may_fall_does_not_hold_it_back():
    found = verdict(promotion(must_not_fall=["image_to_image"]), zero_shot=WORSE)
    assert found["decision"] == "publish"
    assert found["reasons"][-1] == "zero-shot fell, which promotion.must_not_fall allows."


def test_a_fall_counts_where_its_whole_interval_is_beyond_the_tolerance():
    assert verdict(promotion(tolerance=0.9), knn=WORSE)["decision"] == "hold"  # −5 … −1 lies below −0.9
    within = verdict(promotion(tolerance=1.0), knn=WORSE)
    assert within["decision"] == "publish"
    assert within["reasons"][-1] == "What fell stays within the tolerance of 1 points."


def test_an_override_publishes_and_is_recorded():
    found = verdict(promotion(override_reason="zero-shot is not used here"), zero_shot=WORSE)
    assert found["decision"] == "publish"
    assert found["override_reason"] == "zero-shot is not used here"
    assert found["reasons"][-1] == "Published all the same: zero-shot is not used here"


def test_an_override_without_a_fall_is_not_recorded():
    assert verdict(promotion(override_reason="just in case"))["override_reason"] is None


def test_a_blank_override_is_none():
    assert verdict(promotion(override_reason=" "), knn=WORSE)["decision"] == "hold"


def test_without_a_champion_the_reference_is_base_and_the_verdict_says_so():
    champion = {"recipe": None, "model_sha256": None, "metrics": None}
    against, reference, note = choose_reference(row("mcip", 40), row("base", 36), champion, promotion(against="champion"))
    assert (against, reference["recipe"]) == ("base", "base")
    assert "no champion yet" in note


def test_a_champion_is_the_reference_when_asked_for():
    champion = {"recipe": "gpr", "model_sha256": "0", "metrics": row("gpr", 50)}
    assert choose_reference(row("mcip", 40), row("base", 36), champion, promotion())[0] == "base"
    against, reference, note = choose_reference(row("mcip", 40), row("base", 36), champion, promotion(against="champion"))
    assert (against, reference["recipe"]) == ("champion", "gpr")
    assert "overlap" in note


def test_a_champion_without_a_measure_is_an_error_that_names_it():
    metrics = row("gpr", 50)
    del metrics["knn"]
    champion = {"recipe": "gpr", "model_sha256": "0", "metrics": metrics}
    with pytest.raises(UserError, match=r"champion\.json.*'gpr'.*knn\.accuracy.*promotion\.against"):
        choose_reference(row("mcip", 40), row("base", 36), champion, promotion(against="champion"))
