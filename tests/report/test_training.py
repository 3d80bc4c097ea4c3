"""The curves of the trainings."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from assets import artifacts
from assets.report import training
from tests.measured_run import history


def row(epoch: int, value: float | None) -> dict[str, float | None]:
    return {"epoch": epoch, "loss": 5.0 / epoch, "validation_image_to_image": value, "validation_text_to_image": None}


def test_base_stands_first_where_this_project_trained_it():
    about = {"base": "the start", "wide": "wider"}
    found = training.trainings({"wide": history(0.4)}, history(0.1), about)
    assert [(each["recipe"], each["meaning"]) for each in found] == [("base", "the start"), ("wide", "wider")]
    assert [each["recipe"] for each in training.trainings({"wide": history(0.4)}, None, about)] == ["wide"]


def test_a_base_whose_best_epoch_is_its_last_is_advised_to_train_longer():
    """Ten epochs of the demo's base were taken for done; twenty more brought 7 points. Towers have their way back instead."""
    base, tower = training.trainings({"wide": history(0.4)}, history(0.1), {"base": "", "wide": ""})  # a tie: the last is the best
    assert base["kept"]["best_is_last"] and tower["kept"]["best_is_last"]
    assert (base["longer"], tower["longer"]) == (True, False)


def test_the_start_has_no_loss_and_is_no_epoch():
    (found,) = training.trainings({"wide": history(0.4)}, None, {"wide": ""})
    assert (found["epochs"], found["losses"]) == (3, [5.0, 2.5, pytest.approx(5 / 3)])
    drawn = training.training_view([found])["training"][0]
    assert drawn["loss"] and drawn["validation"]


def test_all_recipes_share_one_axis():
    kept = {"epoch": 1, "share": 1.0, "way_back": []}
    low, high = training.validation_limits([{"rows": each, "kept": kept} for each in ([row(1, 0.10)], [row(1, 0.60), row(2, None)])])
    assert (low, high) == (pytest.approx(6), pytest.approx(64))  # 8 % of room on both sides
    assert training.validation_limits([{"rows": [row(1, None)], "kept": kept}]) is None


def test_the_way_back_is_drawn_and_the_ring_is_on_what_was_kept():
    """The ring stood on the best epoch, whose model was not the one that was kept; the kept one could lie above the axis."""
    way_back = [{"share": share, "epoch": 2, "validation_image_to_image": share} for share in (0.75, 0.25)]
    found = history(0.4)
    found["kept"] |= {"epoch": 2, "share": 0.75, "way_back": way_back}
    limits = training.validation_limits([found])
    assert limits[1] > 75
    axes = Figure().subplots()
    training.draw_validation(axes, found, limits)
    curve, way, ring = (list(zip(*line.get_data(), strict=True)) for line in axes.lines)
    assert curve == [(epoch, 40) for epoch in range(4)]
    assert way == [(0, 40), (0.5, 25), (1.5, 75), (2, 40)]
    assert ring == [(1.5, 75)]
    found["kept"] |= {"epoch": 0, "share": 1.0}  # the start was better than all of it
    axes = Figure().subplots()
    training.draw_validation(axes, found, limits)
    assert [list(zip(*line.get_data(), strict=True)) for line in axes.lines[1:]] == [way, [(0, 40)]]


def test_recipes_without_a_history_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.history_file("wide"), history(0.4))
    artifacts.write_json(artifacts.history_file("removed"), history(0.4))
    assert list(training.read_histories(["base", "wide", "not_made"])) == ["wide"]


def test_a_checkpoint_of_others_has_no_alignment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = artifacts.model_dir("base") / artifacts.MODEL_CARD
    artifacts.write_json(card, {"recipe": "base"})
    assert training.read_alignment() is None
    aligned = history(0.1)
    artifacts.write_json(card, {"recipe": "base", "alignment": aligned["rows"], "kept": aligned["kept"]})
    assert training.read_alignment() == aligned
