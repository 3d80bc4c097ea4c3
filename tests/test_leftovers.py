"""What a removed recipe leaves behind goes, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets import artifacts
from assets.leftovers import remove_leftovers

RECIPES, MEASURED = ("base", "gpr", "unmeasured"), ("base", "gpr")


def made(recipe: str) -> list[Path]:
    """What the stages write of a recipe, as far as it is looked at."""
    model, history = artifacts.model_dir(recipe), artifacts.history_file(recipe)
    evaluation, captions = artifacts.evaluation_dir(recipe), artifacts.training_captions_dir(recipe)
    artifacts.write_json(model / artifacts.MODEL_CARD, {"recipe": recipe})
    (model / "weights").write_text("weights", encoding="utf-8")
    artifacts.write_json(history, {"recipe": recipe, "rows": []})
    artifacts.write_json(evaluation / "metrics.json", {"recipe": recipe})
    captions.mkdir(parents=True)
    (captions / artifacts.CAPTIONS.name).touch()
    return [model, history, evaluation, captions]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_removed_recipe_leaves_nothing_and_the_others_stay():
    kept = [*made("base"), *made("gpr")]
    removed = made("wide")
    remove_leftovers(RECIPES, MEASURED)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in removed)


def test_of_a_recipe_that_is_no_longer_measured_only_the_evaluation_goes():
    model, history, evaluation, captions = made("unmeasured")
    remove_leftovers(RECIPES, MEASURED)
    assert not evaluation.exists()
    assert model.exists() and history.exists() and captions.exists()


def test_what_no_stage_made_stays():
    theirs = [
        artifacts.MODELS / "a checkpoint of mine" / "weights.pt",
        artifacts.MODELS / "copied" / artifacts.MODEL_CARD,  # the card names another: somebody copied wide, or renamed it
        artifacts.MODELS / "broken" / artifacts.MODEL_CARD,
        artifacts.MODELS / "notes.txt",
        artifacts.HISTORY / "notes.json",
        artifacts.EVALUATION / "notes" / "metrics.txt",
        artifacts.TRAINING_CAPTIONS / "mine" / "words.txt",
        artifacts.CHAMPION,
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"recipe": "wide"}', encoding="utf-8")
    (artifacts.MODELS / "broken" / artifacts.MODEL_CARD).write_text("{half", encoding="utf-8")
    remove_leftovers(RECIPES, MEASURED)
    assert [path for path in theirs if not path.exists()] == []


def test_nothing_made_yet_is_no_error():
    remove_leftovers(RECIPES, MEASURED)
