"""Several seeds: means, intervals and differences, by hand."""

from __future__ import annotations

import pytest

from assets.measures import SHOWN
from orchestration.seeds.spread import aggregate, t_interval

RECIPES = ("base", "gpr", "gpr_rea", "mcip", "mcip_rea")


def row(recipe: str, value: float, caption: float | None = None) -> dict:
    values = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
    return {"recipe": recipe, **values, "text_to_image": {"recall_at_5": value, "caption_recall_at_5": caption}, "average": value}


def every(value: dict[str, float], caption: float | None = None) -> dict[str, dict]:
    return {recipe: row(recipe, value.get(recipe, 0.0), caption) for recipe in RECIPES}


def test_a_t_interval_by_hand():
    # 1 2 3: mean 2, sd 1, t(0.975, 2) = 4.302653, half = 4.302653 / √3
    assert t_interval([1, 2, 3], 0.95) == pytest.approx((2, 1, 2 - 2.484138, 2 + 2.484138), abs=1e-5)
    # t(0.95, 3) = 2.353363; 2 4 4 6: mean 4, sd √(8/3)
    half = 2.353363 * (8 / 3) ** 0.5 / 2
    assert t_interval([2, 4, 4, 6], 0.9) == pytest.approx((4, (8 / 3) ** 0.5, 4 - half, 4 + half), abs=1e-5)
    with pytest.raises(ValueError, match="at least two"):
        t_interval([1], 0.95)


def test_the_aggregate_by_hand():
    rows = {
        0: every({"base": 10, "gpr": 20, "gpr_rea": 11, "mcip": 9, "mcip_rea": 8}),
        1: every({"base": 12, "gpr": 23, "gpr_rea": 12.1, "mcip": 13, "mcip_rea": 9.5}),
        2: every({"base": 14, "gpr": 24, "gpr_rea": 19, "mcip": 13, "mcip_rea": 11.5}),
    }
    found = aggregate(rows, [["gpr", "mcip"]], 3, 0.95)
    assert (found["seeds"], found["missing"], found["level"]) == ([0, 1, 2], [], 0.95)
    by_recipe = {each["recipe"]: each["measures"] for each in found["rows"]}
    assert list(by_recipe) == list(RECIPES)
    base = by_recipe["base"]["knn.accuracy"]
    assert base == {"values": [10, 12, 14], "mean": 12, "sd": 2, "interval": [7.0317, 16.9683]}  # ∓ 2 · 2.484138
    gpr = by_recipe["gpr"]["average"]["against_base"]  # 10 11 10: mean 31/3, sd √(1/3)
    assert (gpr["mean"], gpr["sd"], gpr["holds"], gpr["outcome"]) == (10.3333, 0.5774, True, "better")
    assert gpr["interval"] == [8.8991, 11.7676]
    gpr_rea = by_recipe["gpr_rea"]["average"]["against_base"]  # 1 0.1 5: above in every seed, but far apart
    assert (gpr_rea["holds"], gpr_rea["outcome"]) == (True, "tie")
    mcip = by_recipe["mcip"]["average"]["against_base"]  # −1 1 −1
    assert (mcip["holds"], mcip["outcome"]) == (False, "tie")
    assert by_recipe["mcip_rea"]["average"]["against_base"]["outcome"] == "worse"  # −2 −2.5 −2.5
    assert by_recipe["base"]["text_to_image.caption_recall_at_5"] is None
    (pair,) = found["pairs"]
    assert (pair["recipe"], pair["against"]) == ("gpr", "mcip")
    difference = pair["differences"]["average"]  # 11 10 11
    assert (difference["values"], difference["mean"], difference["outcome"]) == ([11, 10, 11], 10.6667, "better")
    assert pair["differences"]["text_to_image.caption_recall_at_5"] is None


def test_a_partial_aggregate_says_which_seeds_are_missing_and_a_measure_needs_every_seed():
    rows = {0: every({"base": 1}, caption=5), 2: every({"base": 2})}
    found = aggregate(rows, [["gpr", "mcip"]], 3, 0.95)
    assert (found["seeds"], found["missing"]) == ([0, 2], [1])
    assert found["rows"][0]["measures"]["text_to_image.caption_recall_at_5"] is None
    assert set(found["rows"][0]["measures"]) == {measure.key for measure in SHOWN}


def test_no_difference_at_all_is_a_tie():
    found = aggregate({0: every({}), 1: every({})}, [], 2, 0.95)
    against = found["rows"][1]["measures"]["knn.accuracy"]["against_base"]
    assert (against["holds"], against["outcome"], against["interval"]) == (False, "tie", [0, 0])
