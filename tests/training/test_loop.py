"""The loop on a small real regression: schedule, best epoch, resuming after a kill, a loss that breaks."""

import errno
import io
import math
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import pytest
import torch

from assets.errors import UserError
from assets.training.loop import Schedule, Task, best_row, decay_groups, fit, forget_state, learning_rate_factor, state_dir_for, train_mode

SCHEDULE = Schedule(epochs=5, warmup_fraction=0.2, final_lr_fraction=0.1, gradient_clip_norm=1.0, patience=None)


def task(measures=None, break_at=None, die_at=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    truth = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    epochs = count()

    def batches(epoch):
        if epoch == die_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(10):
            yield torch.randn(8, 4, generator=generator)

    def loss(x):
        value = (model(x) - x @ truth.T).square().mean()
        return value * math.nan if next(steps) == break_at else value

    steps = count()

    def validate():
        number = next(epochs)
        return {"score": measures[number] if measures else -float((model.weight.detach() - truth).square().sum())}

    return model, Task(
        modules={"model": model},
        parameter_groups=decay_groups(dict(model.named_parameters()), 0.1, 0.01),
        batches=batches,
        steps_per_epoch=10,
        loss=loss,
        validate=validate,
        select_by="score",
        images_per_step=8,
    )


def test_it_learns_and_tells(tmp_path):
    _, run = task()
    rows = fit(run, SCHEDULE, tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["validation_score"] > rows[0]["validation_score"]


def test_the_best_epoch_is_kept_the_earliest_of_equals(tmp_path):
    model, run = task(measures=[0.1, 0.7, 0.3, 0.7, 0.2])
    fit(run, SCHEDULE, tmp_path / "all")
    best = model.weight.detach().clone()
    # the same schedule, killed after epoch 2: its state is that of epoch 2
    short, run = task(measures=[0.1, 0.7, 0.3], die_at=3)
    with pytest.raises(KeyboardInterrupt):
        fit(run, SCHEDULE, tmp_path / "killed")
    assert torch.equal(short.weight, best)


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    whole, run = task()
    rows = fit(run, SCHEDULE, tmp_path / "whole")
    for epoch in (2, 4):
        _, run = task(die_at=epoch)
        with pytest.raises(KeyboardInterrupt):
            fit(run, SCHEDULE, tmp_path / "killed")
    resumed, run = task()
    assert fit(run, SCHEDULE, tmp_path / "killed") == rows
    assert torch.equal(resumed.weight, whole.weight)


def test_patience_stops_when_validation_no_longer_rises(tmp_path):
    _, run = task(measures=[0.1, 0.5, 0.4, 0.4, 0.9])
    rows = fit(run, Schedule(5, 0.2, 0.1, 1.0, patience=2), tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(("scores", "kept"), [([0.0, 0.0, 0.0], 1), ([0.1, 0.7, 0.7], 2), ([None, None, None], 3)])
def test_the_kept_epoch_s_row(scores, kept):
    history = [{"epoch": number, "validation_score": score} for number, score in enumerate(scores, 1)]
    assert best_row(history, "score")["epoch"] == kept


def test_nothing_to_validate_keeps_the_last_epoch(tmp_path):
    model, run = task(measures=[None] * 5)
    fit(run, SCHEDULE, tmp_path / "a")
    other, run = task(measures=[1.0, 2.0, 3.0, 4.0, 5.0])
    fit(run, SCHEDULE, tmp_path / "b")
    assert torch.equal(model.weight, other.weight)


def test_a_broken_loss_stops_with_the_step(tmp_path):
    _, run = task(break_at=13)
    with pytest.raises(UserError, match="loss is nan at step 4 of epoch 2"):
        fit(run, SCHEDULE, tmp_path)


def test_a_broken_gradient_stops_before_it_reaches_the_weights(tmp_path):
    model, run = task()
    loss = run.loss

    def with_infinite_slope(x):  # 0 at the root of 0: a finite loss
        return loss(x) + (model.bias - model.bias.detach()).abs().sqrt().sum()

    with pytest.raises(UserError, match="gradient's norm is nan at step 1 of epoch 1"):
        fit(replace(run, loss=with_infinite_slope), SCHEDULE, tmp_path)
    assert torch.isfinite(model.weight).all()


def test_dropout_goes_on_as_if_never_killed(tmp_path):
    def with_dropout(die_at=None):
        model, run = task(die_at=die_at)
        loss = run.loss
        return model, replace(run, loss=lambda x: loss(torch.nn.functional.dropout(x)))

    whole, run = with_dropout()
    fit(run, SCHEDULE, tmp_path / "whole")
    _, run = with_dropout(die_at=3)
    with pytest.raises(KeyboardInterrupt):
        fit(run, SCHEDULE, tmp_path / "killed")
    resumed, run = with_dropout()
    fit(run, SCHEDULE, tmp_path / "killed")
    assert torch.equal(resumed.weight, whole.weight)


def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    class Full(io.RawIOBase):
        def __enter__(self):
            return self

        def writable(self):
            return True

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode: Full())
    _, run = task()
    with pytest.raises(OSError, match="No space left"):
        fit(run, SCHEDULE, tmp_path)


def test_learning_rate_warms_up_and_ends_at_its_fraction():
    factors = [learning_rate_factor(step, 50, SCHEDULE) for step in range(50)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(factors) == factors[9] == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(factors[9:]))


def test_norms_and_biases_do_not_decay():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    module[0].weight.requires_grad_(False)
    decay, free = decay_groups(dict(module.named_parameters()), 0.1, 0.01)
    assert decay["params"] == []
    assert [p.ndim for p in free["params"]] == [1, 1, 1]
    assert (decay["weight_decay"], free["weight_decay"]) == (0.01, 0.0)


def test_state_is_found_only_by_the_same_settings_and_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = state_dir_for("image_tower", {"lr": 1.0, "seed": 0})
    assert first == state_dir_for("image_tower", {"seed": 0, "lr": 1.0})
    assert first != state_dir_for("image_tower", {"lr": 2.0, "seed": 0})
    monkeypatch.setattr("assets.training.loop.ASSETS", tmp_path / "assets")
    for name in ("image_tower", "training", "clip", "metrics"):
        (tmp_path / "assets" / name).mkdir(parents=True)
    elsewhere = state_dir_for("image_tower", {"lr": 1.0, "seed": 0})
    (tmp_path / "assets" / "training" / "loop.py").write_text("another loop")
    assert state_dir_for("image_tower", {"lr": 1.0, "seed": 0}) != elsewhere
    first.mkdir(parents=True)
    forget_state(first)
    assert not first.exists()


def test_locked_parts_keep_their_batch_norm_statistics():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4))
    module[:2].requires_grad_(False)
    train_mode(module)
    module(torch.randn(2, 3, 5, 5))
    assert module[1].running_mean.abs().sum() == 0
    assert module[3].running_mean.abs().sum() > 0
