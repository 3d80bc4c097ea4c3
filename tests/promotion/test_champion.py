"""The champion beside the candidates: on the same pictures of today, without the classes that it was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assets import artifacts, params
from assets.errors import UserError
from assets.evaluations import read_evaluation, read_test_split
from assets.promotion.champion import row_over, split_digest
from assets.promotion.comparison import query_families
from assets.promotion.stage import judge_recipes
from assets.recipes import CHAMPION
from assets.report.stage import make_report
from tests.measured_run import ABOUT, RECIPES, crown, measure


def judged(promotion: params.Promotion, **changes: Any) -> dict[str, Any]:
    judge_recipes(promotion.model_copy(update=changes), RECIPES)
    return artifacts.read_json(artifacts.VERDICT)


def metrics() -> dict[str, Any]:
    return artifacts.read_json(artifacts.METRICS)


def test_the_digest_is_of_the_images_their_classes_and_names_in_any_order():
    rows = {"id": ["1", "2"], "label": ["a", "b"], "class_name": ["ant", "bee"], "sha256": ["0", "1"], "source": ["x", "x"]}
    digest = split_digest(pa.table(rows))
    assert split_digest(pa.table({name: values[::-1] for name, values in rows.items()})) == digest
    assert split_digest(pa.table(rows | {"source": ["y", "y"]})) == digest
    for name in ("id", "label", "class_name", "sha256"):
        assert split_digest(pa.table(rows | {name: ["other", rows[name][1]]})) != digest


def test_without_a_champion_there_is_no_row(inputs, promotion):
    inputs()
    verdict = judged(promotion, against="champion")
    assert [row["recipe"] for row in metrics()["rows"]] == RECIPES
    assert verdict["against"] == "base" and "no champion yet" in verdict["reasons"][0]


def test_the_champion_is_a_row_compared_by_pairs_and_moves_no_other_number(inputs, promotion):
    inputs()
    judged(promotion)
    alone = metrics()
    crown("gpr_rea")
    verdict = judged(promotion, against="champion", must_rise={"image_to_image": 0.0})
    beside = metrics()
    assert beside["rows"][:-1] == alone["rows"] and beside["pairs"][:-1] == alone["pairs"]
    champion, row = beside["rows"][-1], next(row for row in alone["rows"] if row["recipe"] == "gpr_rea")
    assert champion == row | {"recipe": CHAMPION, "champion": {"recipe": "gpr_rea", "classes": 6, "seen": []}}
    pair = beside["pairs"][-1]
    assert pair | {"against": "gpr_rea"} == alone["pairs"][1], "as with the recipe that it was"
    assert (verdict["against"], verdict["families"]["knn"]["reference"]) == ("champion", row["knn"]["accuracy"])
    for family, key in (("knn", "knn.accuracy"), ("image_to_image", "image_to_image.map")):
        assert {name: verdict["families"][family][name] for name in ("difference", "interval", "outcome")} == pair["differences"][key]


def test_a_champion_of_the_same_model_need_not_rise(inputs, promotion):
    inputs()
    crown("mcip_rea")
    asked = {"against": "champion", "must_rise": {"image_to_image": 0.0}}
    assert judged(promotion, **asked)["decision"] == "publish"
    assert judged(promotion, recipe="mcip", pairs=[], **asked)["decision"] == "hold", "the same scores and another model"


def test_classes_that_the_champion_was_trained_on_are_left_out_and_named(inputs, promotion, settings):
    """With another seed of the splits the champion was asked what it had learned by heart."""
    inputs()
    crown("gpr", seen=["1", "2"])
    verdict = judged(promotion, against="champion")
    said = "It was trained on 2 of the 6 test classes, which are left out of the comparison (families: 1, 2)."
    assert said in verdict["reasons"]
    evaluation = read_evaluation("mcip_rea", read_test_split())
    unseen = ~np.isin(query_families(evaluation.per_query, evaluation.per_class), ["1", "2"])
    assert verdict["families"]["knn"]["value"] == row_over(evaluation, unseen)["knn"]["accuracy"]
    assert verdict["families"]["knn"]["value"] == pytest.approx(100 * np.mean(evaluation.per_query["knn_correct"].to_numpy()[8:]))
    champion = metrics()["rows"][-1]
    assert champion["champion"] == {"recipe": "gpr", "classes": 4, "seen": ["1", "2"]}
    assert champion["knn"]["accuracy"] == verdict["families"]["knn"]["reference"]
    assert champion["text_to_image"].get("caption_recall_at_5") is None
    few = settings.model_copy(update={"queries": 1, "worst_failures": 1})
    make_report(few, promotion.model_copy(update={"against": "champion"}), ABOUT, RECIPES)
    text = artifacts.REPORT_MARKDOWN.read_text(encoding="utf-8")
    assert said in text and "| champion |" in text and "mcip_rea against champion" in text
    page = artifacts.REPORT_PAGE.read_text(encoding="utf-8")
    assert "on 4 classes, without those of 2 families that it was trained on" in page


def test_a_champion_that_has_seen_every_test_class_judges_nothing(inputs, promotion):
    inputs()
    crown("gpr", seen=["1", "2", "3", "4", "5", "6"])
    verdict = judged(promotion, against="champion")
    assert verdict["decision"] == "hold" and not verdict["families"]


def test_a_changed_setting_is_measured_anew_for_both(inputs, promotion):
    """A champion that kept its numbers alone could not be compared once k of k-NN had changed."""
    inputs()
    crown("gpr")
    for recipe in RECIPES:
        measure(recipe, knn_k=5)
    kept = artifacts.read_json(artifacts.CHAMPION)
    crown("gpr")
    artifacts.write_json(artifacts.CHAMPION, kept)
    assert not judged(promotion, against="champion")["unjudged"]


def test_results_that_are_missing_or_of_another_model_are_named(inputs, promotion):
    inputs()
    artifacts.write_json(artifacts.CHAMPION, {"recipe": "gpr", "model_sha256": "0" * 64, "metrics": {}})
    with pytest.raises(UserError, match=r"names gpr, and data/evaluation/champion lacks its results\. `dvc repro champion`"):
        judged(promotion)
    artifacts.write_json(artifacts.CHAMPION, crown("gpr") | {"model_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"is of another model than data/champion\.json names"):
        judged(promotion)
