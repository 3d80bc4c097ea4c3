"""make promote: the champion is written from what promotion judged, or not at all."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import artifacts
from assets.commands import promote
from assets.errors import UserError

MODEL = "a" * 64
# with a value that looks like a part of the file that is written
SETTINGS = {"base_clip.lr": 1e-3, "image_tower.lr": 1e-4, "image_tower.note": '"classes": {', "evaluation.prompts": ["{}"]}


def write_values(folder):
    """Three images of two classes, one of which is alone in its class and so searches for nothing."""
    per_query = {"id": ["1", "2", "3"], "label": ["a", "a", "ü"], "average_precision": [50.0, 25.0, None], "hit_at_1": [True, False, None]}
    per_query |= {"knn_correct": [True, True, False], "zero_shot_correct": [False, False, True]}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(per_query), folder / "per_query.parquet")
    pq.write_table(pa.table({"label": ["a", "ü"], "recall_at_5": [100.0, 0.0]}), folder / "per_class.parquet")


def write_verdict(**changes):
    verdict = {"recipe": "mcip", "decision": "publish", "reasons": [], "override_reason": None}
    artifacts.write_json(artifacts.VERDICT, verdict | {"model_sha256": MODEL, "test_sha256": "5" * 64} | changes)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A verdict to publish mcip, its row and its evaluation. The model itself may be elsewhere."""
    monkeypatch.chdir(tmp_path)
    row = {"recipe": "mcip", "knn": {"accuracy": 40.0}, "average": 41.25, "confidence": {"level": 0.95, "average": [40, 42]}}
    row |= {"without_siblings": {"classes": 1, "images": 2, "average": 39.5}}
    artifacts.write_json(artifacts.evaluation_dir("mcip") / "metrics.json", row | {"counts": {"images": 3}})
    row = row | {name: row[name] | {"against_base": {"average": {"difference": 1.0}}} for name in ("confidence", "without_siblings")}
    artifacts.write_json(artifacts.METRICS, {"rows": [{"recipe": "base"}, row], "counts": {}, "groups": []})
    write_values(artifacts.evaluation_dir("mcip"))
    made_with = {"recipe": "mcip", "model_sha256": MODEL, "chain": ["base", "mcip"], "settings": SETTINGS}
    artifacts.write_json(artifacts.evaluation_dir("mcip") / "made_with.json", made_with)
    write_verdict()
    artifacts.write_json(artifacts.CHAMPION, {"recipe": None, "model_sha256": None, "metrics": None})
    return row


def test_it_writes_recipe_model_and_row_and_says_so(published, capsys):
    assert promote.main() == 0
    champion = artifacts.read_json(artifacts.CHAMPION)
    paired = champion.pop("paired")
    assert champion.pop("settings") == SETTINGS
    assert champion == {"recipe": "mcip", "model_sha256": MODEL, "override_reason": None, "metrics": published}
    assert paired["test_sha256"] == "5" * 64
    assert paired["classes"] == {"a": [37.5, 50, 100, 0, 100], "ü": [None, None, 0, 100, 0]}
    assert '\n      "a": [37.5, 50.0, 100.0, 0.0, 100.0],\n' in artifacts.CHAMPION.read_text(encoding="utf-8")  # one line per class
    assert "data/champion.json: the champion is mcip, average 41.2" in capsys.readouterr().out


def test_an_override_is_kept(published):
    write_verdict(override_reason="zero-shot is not used here")
    assert promote.promote()["override_reason"] == "zero-shot is not used here"
    assert artifacts.read_json(artifacts.CHAMPION)["override_reason"] == "zero-shot is not used here"


def test_it_refuses_what_is_held_back(published, capsys):
    before = artifacts.CHAMPION.read_bytes()
    write_verdict(decision="hold", reasons=["k-NN must not fall, but fell."])
    assert promote.main() == 1
    said = capsys.readouterr().err
    assert "mcip is held back" in said
    assert "k-NN must not fall, but fell." in said
    assert artifacts.CHAMPION.read_bytes() == before


def test_it_refuses_a_verdict_that_is_older_than_the_evaluation(published):
    path = artifacts.evaluation_dir("mcip") / "metrics.json"
    artifacts.write_json(path, artifacts.read_json(path) | {"average": 12.0})
    with pytest.raises(UserError, match="dvc repro promotion"):
        promote.promote()


def test_it_refuses_a_model_that_the_verdict_does_not_judge(published):
    """A model trained anew may score the same row."""
    before = artifacts.CHAMPION.read_bytes()
    path = artifacts.evaluation_dir("mcip") / "made_with.json"
    artifacts.write_json(path, artifacts.read_json(path) | {"model_sha256": "0" * 64})
    with pytest.raises(
        UserError, match=r"data/evaluation/mcip is not of the model that data/promotion/verdict.json judges.*repro promotion"
    ):
        promote.promote()
    assert artifacts.CHAMPION.read_bytes() == before


@pytest.mark.parametrize("name", ["made_with.json", "per_class.parquet"])
def test_it_names_a_part_of_the_evaluation_that_is_missing(published, name):
    (artifacts.evaluation_dir("mcip") / name).unlink()
    with pytest.raises(UserError, match=f"no data/evaluation/mcip/{name}. `dvc checkout` restores it"):
        promote.promote()


def test_without_a_verdict_it_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc repro promotion"):
        promote.promote()
