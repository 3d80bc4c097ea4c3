"""make promote: the champion is written from what promotion judged, or not at all."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from assets import artifacts
from assets.commands import promote
from assets.errors import UserError
from assets.promotion.stage import judge_recipes
from tests.measured_run import RECIPES, finished_run, inputs, promotion, settings

__all__ = ["finished_run", "inputs", "promotion", "settings"]


@pytest.fixture
def published(inputs, promotion):
    """A verdict to publish mcip_rea, and all that it was made from."""
    inputs()
    judge_recipes(promotion, RECIPES)
    (row,) = [row for row in artifacts.read_json(artifacts.METRICS)["rows"] if row["recipe"] == promotion.recipe]
    return row


def test_it_keeps_model_row_and_what_was_trained_on_and_says_so(published, capsys):
    assert promote.main() == 0
    champion = artifacts.read_json(artifacts.CHAMPION)
    made_with = artifacts.read_json(artifacts.evaluation_dir("mcip_rea") / "made_with.json")
    assert champion.pop("settings") == made_with["settings"]
    digest = artifacts.sha256_of(artifacts.model_dir("mcip_rea"))
    assert champion == {"recipe": "mcip_rea", "model_sha256": digest, "override_reason": None, "metrics": published}
    assert artifacts.sha256_of(artifacts.CHAMPION_MODEL) == digest
    trained_on = pq.read_table(artifacts.TRAINED_ON).to_pylist()
    assert {(row["label"], row["family"], row["split"]) for row in trained_on} == {("t1", "t1", "train"), ("t2", "t2", "train")}
    assert len(trained_on) == 8
    said = capsys.readouterr().out
    assert "data/champion.json: the champion is mcip_rea, average" in said
    assert "`dvc push` carries the model" in said


def test_a_model_that_is_trained_anew_leaves_the_kept_one_alone(published):
    promote.promote()
    (artifacts.model_dir("mcip_rea") / artifacts.MODEL_CARD).write_text("{}", encoding="utf-8")
    assert artifacts.sha256_of(artifacts.CHAMPION_MODEL) == artifacts.read_json(artifacts.CHAMPION)["model_sha256"]


def test_an_override_is_kept(published):
    artifacts.write_json(artifacts.VERDICT, artifacts.read_json(artifacts.VERDICT) | {"override_reason": "zero-shot is not used here"})
    assert promote.promote()["override_reason"] == "zero-shot is not used here"
    assert artifacts.read_json(artifacts.CHAMPION)["override_reason"] == "zero-shot is not used here"


def test_it_refuses_what_is_held_back(published, capsys):
    before = artifacts.CHAMPION.read_bytes()
    held = {"decision": "hold", "reasons": ["k-NN must not fall, but fell."]}
    artifacts.write_json(artifacts.VERDICT, artifacts.read_json(artifacts.VERDICT) | held)
    assert promote.main() == 1
    said = capsys.readouterr().err
    assert "mcip_rea is held back" in said
    assert "k-NN must not fall, but fell." in said
    assert artifacts.CHAMPION.read_bytes() == before
    assert not artifacts.CHAMPION_KEPT.exists()


def test_it_refuses_a_verdict_that_is_older_than_the_evaluation(published):
    path = artifacts.evaluation_dir("mcip_rea") / "metrics.json"
    artifacts.write_json(path, artifacts.read_json(path) | {"average": 12.0})
    with pytest.raises(UserError, match="dvc repro promotion"):
        promote.promote()


def test_it_refuses_a_model_that_the_verdict_does_not_judge(published):
    """A model trained anew may score the same row."""
    before = artifacts.CHAMPION.read_bytes()
    artifacts.write_json(artifacts.model_dir("mcip_rea") / "more.json", {})
    with pytest.raises(UserError, match=r"data/models/mcip_rea is not the model that data/promotion/verdict.json judges.*repro promotion"):
        promote.promote()
    assert artifacts.CHAMPION.read_bytes() == before


def test_it_refuses_a_verdict_on_other_test_pictures(published):
    """What the champion was trained on would be a list of other pictures than it saw."""
    artifacts.write_json(artifacts.VERDICT, artifacts.read_json(artifacts.VERDICT) | {"test_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"has other test pictures than data/promotion/verdict.json was decided on"):
        promote.promote()


def test_it_names_a_part_of_the_evaluation_that_is_missing(published):
    (artifacts.evaluation_dir("mcip_rea") / "made_with.json").unlink()
    with pytest.raises(UserError, match=r"no data/evaluation/mcip_rea/made_with\.json\. `dvc checkout` restores it"):
        promote.promote()


def test_without_a_verdict_it_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc repro promotion"):
        promote.promote()
