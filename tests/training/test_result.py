"""What a training leaves: a model that is a copy of its start but for the weights, with a card of how it came to be."""

import torch

from assets import artifacts
from assets.clip.model import CONFIG, load_clip
from assets.recipes import Recipe
from assets.training.result import write_result
from assets.training.selection import kept
from tests.models import write_model

ROWS = [
    {"epoch": 0, "validation_score": 0.5, "validation_spread": 0.1},
    {"epoch": 1, "validation_score": 0.7, "validation_spread": 0.2},
    {"epoch": 2, "validation_score": 0.6, "validation_spread": 0.3},
]
KEPT = kept(ROWS, "score", start_is_candidate=True, cannot_choose=None, validated_on="some pictures")


def write(name, start, params, state_dir):
    model, *_ = load_clip(artifacts.model_dir(start))
    with torch.no_grad():
        model.logit_scale += 1
    recipe = Recipe(name, "image_tower", start, "of the tests", None)
    determined_by = {"params": params, "inputs": {start: "abc"}}
    like = artifacts.model_dir(start)
    write_result(model, recipe, like=like, determined_by=determined_by, history=ROWS, kept=KEPT, state_dir=state_dir)
    return model


def test_the_card_has_every_model_on_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(artifacts.model_dir("base"))
    (tmp_path / "state").mkdir()
    write("one", "base", {"lr": 1}, tmp_path / "state")
    model = write("two", "one", {"lr": 2}, tmp_path / "state")
    assert artifacts.read_json(artifacts.model_dir("two") / artifacts.MODEL_CARD) == {
        "recipe": "two",
        "stage": "image_tower",
        "made_from": [
            {"recipe": "base", "stage": "base_clip", "params": {"kind": "vit"}},
            {"recipe": "one", "stage": "image_tower", "params": {"lr": 1}},
        ],
        "params": {"lr": 2},
        "inputs": {"one": "abc"},
        "kept": KEPT.as_json(),
    }
    assert artifacts.read_json(artifacts.history_file("two")) == {"recipe": "two", "rows": ROWS, "kept": KEPT.as_json()}
    assert KEPT.as_json()["measures"] == {"validation_score": 0.7, "validation_spread": 0.2}  # of the best epoch
    assert (artifacts.model_dir("two") / CONFIG).read_bytes() == (artifacts.model_dir("base") / CONFIG).read_bytes()
    assert torch.equal(load_clip(artifacts.model_dir("two"))[0].logit_scale, model.logit_scale)
    assert not (tmp_path / "state").exists()
