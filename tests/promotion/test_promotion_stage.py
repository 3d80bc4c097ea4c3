"""The stage from the evaluations to metrics.json and verdict.json."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from assets import artifacts
from assets.errors import UserError
from assets.promotion.stage import judge_recipes
from tests.measured_run import RECIPES


def test_rows_are_the_evaluations_in_the_order_asked_for(report):
    metrics = artifacts.read_json(artifacts.METRICS)
    assert [row["recipe"] for row in metrics["rows"]] == RECIPES
    assert metrics["counts"] == {"images": 24, "classes": 6, "captions": 7}
    base = metrics["rows"][0]
    for row in metrics["rows"]:
        evaluated = artifacts.read_json(artifacts.evaluation_dir(row["recipe"]) / "metrics.json")
        against_base = row["confidence"].pop("against_base")
        apart = row["without_siblings"].pop("against_base")
        assert row | {"counts": evaluated["counts"]} == evaluated
        assert set(row) == {"recipe", "image_to_image", "knn", "zero_shot", "text_to_image", "average", "confidence", "without_siblings"}
        difference = row["image_to_image"]["map"] - base["image_to_image"]["map"]
        assert against_base["image_to_image.map"]["difference"] == pytest.approx(difference, abs=1e-3)
        assert against_base["average"]["difference"] == pytest.approx(row["average"] - base["average"], abs=1e-3)
        assert (row["without_siblings"]["classes"], row["without_siblings"]["images"]) == (5, 20)
        difference = row["without_siblings"]["average"] - base["without_siblings"]["average"]
        assert apart["average"]["difference"] == pytest.approx(difference, abs=1e-3)
        assert apart["average"]["outcome"] == "tie", "five families are too few to tell, where six are not"
        assert "text_to_image.caption_recall_at_5" not in apart, "a caption belongs to no class"


def test_a_pair_is_compared_directly_on_the_same_queries(report, promotion):
    """Not by the difference of two differences to base: that has another interval."""
    metrics = artifacts.read_json(artifacts.METRICS)
    assert [[pair["recipe"], pair["against"]] for pair in metrics["pairs"]] == promotion.pairs
    values = {row["recipe"]: row["average"] for row in metrics["rows"]}
    values_apart = {row["recipe"]: row["without_siblings"] for row in metrics["rows"]}
    for pair in metrics["pairs"]:
        found = pair["differences"]["average"]
        assert found["difference"] == pytest.approx(values[pair["recipe"]] - values[pair["against"]], abs=1e-3)
        low, high = found["interval"]
        assert low <= found["difference"] <= high
        apart = [values_apart[recipe]["image_to_image"]["map"] for recipe in (pair["recipe"], pair["against"])]
        found = pair["without_siblings"]["image_to_image.map"]
        assert found["difference"] == pytest.approx(apart[0] - apart[1], abs=1e-3)


def test_the_verdict_follows_from_the_values(report):
    verdict = artifacts.read_json(artifacts.VERDICT)
    assert (verdict["recipe"], verdict["against"], verdict["decision"]) == ("mcip_rea", "base", "publish")
    assert verdict["families"]["image_to_image"]["outcome"] == "better"
    assert verdict["model_sha256"] == artifacts.sha256_of(artifacts.model_dir("mcip_rea"))
    measured = {"model_sha256", "test_sha256"}
    asked = {"must_not_fall", "must_rise", "unjudged", "override_reason"}
    assert set(verdict) == {"recipe", "against", "decision", "reasons", "families"} | asked | measured


def test_groups_are_compared_on_their_own_classes(report, promotion):
    groups = artifacts.read_json(artifacts.METRICS)["groups"]
    assert [(row["group"], row["images"], row["classes"]) for row in groups] == [("discs", 12, 3), ("shapes", 12, 3)]
    shapes = groups[1]
    assert shapes["after"] - shapes["before"] == pytest.approx(shapes["difference"]["difference"], abs=1e-3)


def test_the_same_evaluations_give_the_same_bytes(inputs, promotion):
    inputs()
    judge_recipes(promotion, RECIPES)
    before = [path.read_bytes() for path in (artifacts.METRICS, artifacts.VERDICT)]
    judge_recipes(promotion, RECIPES)
    assert [path.read_bytes() for path in (artifacts.METRICS, artifacts.VERDICT)] == before


def test_other_rows_leave_a_row_as_it_is(inputs, promotion):
    """A recipe more or fewer must not move the numbers of the others."""
    inputs()
    judge_recipes(promotion, RECIPES)
    every = {row["recipe"]: row for row in artifacts.read_json(artifacts.METRICS)["rows"]}
    judge_recipes(promotion.model_copy(update={"pairs": []}), ["mcip_rea", "base"])
    assert artifacts.read_json(artifacts.METRICS)["rows"] == [every["mcip_rea"], every["base"]]


def test_base_itself_can_be_judged(inputs, promotion):
    inputs()
    judge_recipes(promotion.model_copy(update={"recipe": "base"}), RECIPES)
    verdict = artifacts.read_json(artifacts.VERDICT)
    assert verdict["decision"] == "publish"
    assert {entry["outcome"] for entry in verdict["families"].values()} == {"tie"}


def test_without_captions_or_groups(inputs, promotion):
    inputs(groups=False, captions=False)
    judge_recipes(promotion, RECIPES)
    metrics = artifacts.read_json(artifacts.METRICS)
    assert metrics["rows"][0]["text_to_image"]["caption_recall_at_5"] is None
    assert metrics["groups"] == []


def test_an_evaluation_of_other_images_is_named(inputs, promotion):
    inputs()
    path = artifacts.evaluation_dir("mcip") / "image_embeddings.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(UserError, match=r"data/evaluation/mcip .*23 image.*dvc repro evaluation@mcip"):
        judge_recipes(promotion, RECIPES)
    assert not artifacts.METRICS.exists()


def test_it_loads_neither_torch_nor_anything_that_draws(checkout):
    """Promotion decides what is published; a drawing library that breaks must not stop it."""
    script = "import sys, assets.promotion.stage; print([name for name in ('torch', 'matplotlib', 'jinja2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
