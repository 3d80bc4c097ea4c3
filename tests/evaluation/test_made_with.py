"""The chain and the settings of a model, flat: two evaluations that differ in a setting must differ here, whichever recipe set it."""

import pytest

from assets import artifacts
from assets.errors import UserError
from assets.evaluation.made_with import made_with, read_model_card

BASE = {"recipe": "base", "stage": "base_clip", "params": {"epochs": 30}}
WIDE = {"recipe": "wide", "stage": "image_tower", "params": {"margin": 0.3, "lora": {"rank": 16}, "scale": [0.8, 1.25]}}


def test_the_last_of_a_stage_has_the_plain_names():
    card = {"recipe": "x", "stage": "image_tower", "params": {"margin": 0.1, "lora": {"rank": 8}}, "made_from": [BASE, WIDE]}
    assert made_with("x", "abc", card, {"knn_k": 21}) == {
        "recipe": "x",
        "model_sha256": "abc",
        "chain": ["base", "wide", "x"],
        "settings": {
            "base_clip.epochs": 30,
            "image_tower@wide.margin": 0.3,
            "image_tower@wide.lora.rank": 16,
            "image_tower@wide.scale": [0.8, 1.25],
            "image_tower.margin": 0.1,
            "image_tower.lora.rank": 8,
            "evaluation.knn_k": 21,
        },
    }


def test_base_is_made_from_nothing():
    found = made_with("base", "abc", BASE | {"made_from": []}, {})
    assert (found["chain"], found["settings"]) == (["base"], {"base_clip.epochs": 30})


def test_a_card_that_names_too_little_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data/models/base/model_card\.json is not there or has no recipe, stage, made_from, params\."):
        read_model_card(artifacts.model_dir("base"))
    artifacts.write_json(artifacts.model_dir("base") / artifacts.MODEL_CARD, BASE)
    with pytest.raises(UserError, match=r"has no made_from\. `dvc checkout`"):
        read_model_card(artifacts.model_dir("base"))
