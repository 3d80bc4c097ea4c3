"""The curves of the trainings."""

from __future__ import annotations

import pytest

from assets import artifacts
from assets.report import training


def row(epoch: int, value: float | None) -> dict[str, float | None]:
    return {"epoch": epoch, "loss": 5.0 / epoch, "validation_image_to_image": value, "validation_text_to_image": None}


def test_base_stands_first_where_this_project_trained_it():
    histories, about = {"wide": [row(1, 0.4)]}, {"base": "the start", "wide": "wider"}
    found = training.trainings(histories, [row(1, 0.1)], about)
    assert [(each["recipe"], each["meaning"]) for each in found] == [("base", "the start"), ("wide", "wider")]
    assert [each["recipe"] for each in training.trainings(histories, None, about)] == ["wide"]


def test_all_recipes_share_one_axis():
    low, high = training.validation_limits([[row(1, 0.10)], [row(1, 0.60), row(2, None)]]) or (None, None)
    assert (low, high) == (pytest.approx(6), pytest.approx(64))  # 8 % of room on both sides
    assert training.validation_limits([[row(1, None)]]) is None


def test_recipes_without_a_history_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.history_file("wide"), {"recipe": "wide", "rows": [row(1, 0.4)]})
    artifacts.write_json(artifacts.history_file("removed"), {"recipe": "removed", "rows": [row(1, 0.4)]})
    assert list(training.read_histories(["base", "wide", "not_made"])) == ["wide"]


def test_a_checkpoint_of_others_has_no_alignment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = artifacts.model_dir("base") / artifacts.MODEL_CARD
    artifacts.write_json(card, {"recipe": "base"})
    assert training.read_alignment() is None
    artifacts.write_json(card, {"recipe": "base", "alignment": [row(1, 0.1)]})
    assert training.read_alignment() == [row(1, 0.1)]
