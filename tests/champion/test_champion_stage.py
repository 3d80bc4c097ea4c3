"""The kept model is measured on today's pictures; what it was trained on is never its test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from assets import artifacts
from assets.champion.seen import seen_families, trained_on
from assets.champion.stage import measure_champion
from assets.errors import UserError
from assets.evaluation.stage import evaluate
from assets.evaluations import read_evaluation, read_test_split
from assets.recipes import CHAMPION
from tests.evaluation.test_evaluation_stage import OTHER_ROWS, RECIPE, SETTINGS, TEST_ROWS, here, row, write_curated

__all__ = ["here"]


def promote() -> None:
    """As `make promote` leaves it."""
    shutil.copytree(artifacts.model_dir(RECIPE), artifacts.CHAMPION_MODEL)
    pq.write_table(trained_on(), artifacts.TRAINED_ON)
    told = {"recipe": RECIPE, "model_sha256": artifacts.sha256_of(artifacts.CHAMPION_MODEL)}
    artifacts.write_json(artifacts.CHAMPION, told)


def test_without_a_champion_there_are_no_results_and_those_of_an_earlier_one_go(here: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    artifacts.write_json(artifacts.CHAMPION, {"recipe": None, "model_sha256": None, "metrics": None})
    for folder in (artifacts.CHAMPION_MODEL, artifacts.evaluation_dir(CHAMPION)):
        artifacts.write_json(folder / "of_an_earlier_one.json", {})
    measure_champion(SETTINGS)
    assert [path.name for path in artifacts.CHAMPION_KEPT.iterdir()] == [artifacts.TRAINED_ON.name]
    assert [path.name for path in artifacts.evaluation_dir(CHAMPION).iterdir()] == [artifacts.SEEN]
    assert "there is no champion yet" in caplog.text


def test_it_scores_what_evaluation_scores_also_on_pictures_that_came_later(here: Path):
    promote()
    for rows in (TEST_ROWS, [*TEST_ROWS, row("test", "a/3", "u2", "red heart", "symbols", ["love"], 11)]):
        write_curated(rows + OTHER_ROWS)
        evaluate(SETTINGS, RECIPE)
        measure_champion(SETTINGS)
        champion, same = (read_evaluation(each, read_test_split()) for each in (CHAMPION, RECIPE))
        assert champion.metrics == same.metrics | {"recipe": CHAMPION}
        assert champion.per_query.equals(same.per_query)
        assert champion.made_with["model_sha256"] == same.made_with["model_sha256"]
    assert artifacts.read_json(artifacts.evaluation_dir(CHAMPION) / artifacts.SEEN) == {"families": []}


def test_a_class_that_was_trained_on_is_found_by_family_name_or_file(here: Path, caplog: pytest.LogCaptureFixture):
    promote()
    now_test = [each | {"split": "test"} for each in OTHER_ROWS[:2]]  # u4 changed its side: another seed
    renamed = [{**TEST_ROWS[0], "sha256": OTHER_ROWS[2]["sha256"]}]  # a validation picture under another label, u2
    renamed = [each | {"id": f"n/{each['id']}"} for each in renamed]
    write_curated([*TEST_ROWS, *now_test, *renamed, row("train", "t", "u7", "t", None, [], 12)])
    assert seen_families(read_test_split()) == ["u2", "u4"]
    measure_champion(SETTINGS)
    assert artifacts.read_json(artifacts.evaluation_dir(CHAMPION) / artifacts.SEEN) == {"families": ["u2", "u4"]}
    assert "the champion was trained on 2 of the 5 test classes" in caplog.text


def test_a_class_that_both_are_trained_on_as_the_source_wants_it_is_a_test_for_both(here: Path):
    both = [*OTHER_ROWS, row("test", "d/4", "u4", "dog face", "animals", [], 13)]
    write_curated(TEST_ROWS + both)
    promote()
    assert seen_families(read_test_split()) == []


@pytest.mark.parametrize("holds", ["no model", "a model with sha256"])
def test_another_model_than_the_one_named_is_refused_with_what_to_do(here: Path, holds: str):
    promote()
    if holds == "no model":
        shutil.rmtree(artifacts.CHAMPION_KEPT)
    else:
        (artifacts.CHAMPION_MODEL / artifacts.MODEL_CARD).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=rf"names the model gpr .* holds {holds}.*`dvc checkout champion`.*`make promote`"):
        measure_champion(SETTINGS)
