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
from assets.params import Guards, Training
from assets.training.loop import Task, best_measures, decay_groups, fit, forget_state, learning_rate_factor, state_dir_for, train_mode
from assets.training.randomness import generator_for

SETTINGS = Training(
    seed=0,
    device="cpu",
    precision="fp32",
    epochs=5,
    batch_size=8,
    final_lr_fraction=0.1,
    weight_decay=0.01,
    warmup_fraction=0.2,
    gradient_clip_norm=1.0,
    accumulate=1,
    ema_decay=None,
    gradient_checkpointing=False,
    compile=False,
    guards=Guards(
        max_loss_growth=2.0,
        max_gradient_growth=100.0,
        min_spread=0.1,
        min_cosine_to_start=0.3,
        min_text_to_image=0.5,
        max_logit_scale_change=10.0,
    ),
    checkpoint_minutes=60.0,
)
EVERY_STEP = SETTINGS.model_copy(update={"checkpoint_minutes": 0.0})


def task(measures=None, break_at=None, die_at=None, patience=None):
    """`die_at`: (epoch, step) before which the process is killed."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    truth = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    epochs = count()

    def batches(epoch, done):
        for step in range(done, 10):
            if (epoch, step) == die_at:
                raise KeyboardInterrupt
            yield torch.randn(8, 4, generator=generator_for(epoch, step))

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
        patience=patience,
    )


def test_it_learns_and_tells(tmp_path):
    _, run = task()
    rows = fit(run, SETTINGS, tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["validation_score"] > rows[0]["validation_score"]


def test_the_best_epoch_is_kept_the_earliest_of_equals(tmp_path):
    model, run = task(measures=[0.1, 0.7, 0.3, 0.7, 0.2])
    fit(run, SETTINGS, tmp_path / "all")
    best = model.weight.detach().clone()
    # the same schedule, killed after epoch 2: its state is that of epoch 2
    short, run = task(measures=[0.1, 0.7, 0.3], die_at=(3, 0))
    with pytest.raises(KeyboardInterrupt):
        fit(run, SETTINGS, tmp_path / "killed")
    assert torch.equal(short.weight, best)


@pytest.mark.parametrize("settings", [SETTINGS, EVERY_STEP], ids=["a state an epoch", "a state a step"])
def test_killed_twenty_times_and_resumed_equals_undisturbed(tmp_path, settings):
    def with_dropout(**options):
        model, run = task(**options)
        loss = run.loss
        return model, replace(run, loss=lambda x: loss(torch.nn.functional.dropout(x)))

    whole, run = with_dropout()
    rows = fit(run, settings, tmp_path / "whole")
    places = sorted(torch.randperm(50, generator=generator_for(1))[:20].tolist())
    for place in places:
        _, run = with_dropout(die_at=(place // 10 + 1, place % 10))
        with pytest.raises(KeyboardInterrupt):
            fit(run, settings, tmp_path / "killed")
    resumed, run = with_dropout()
    assert fit(run, settings, tmp_path / "killed") == rows
    assert torch.equal(resumed.weight, whole.weight)


def test_a_state_that_a_disk_has_lost_is_replaced_by_the_one_before(tmp_path, caplog):
    whole, run = task()
    fit(run, EVERY_STEP, tmp_path / "whole")
    _, run = task(die_at=(2, 4))
    with pytest.raises(KeyboardInterrupt):
        fit(run, EVERY_STEP, tmp_path / "killed")
    states = sorted((tmp_path / "killed").iterdir())
    assert [state.name for state in states] == [f"epoch00002-step00000000{step}.pt" for step in (0, 3, 4)]
    states[-1].write_bytes(states[-1].read_bytes()[:100])
    resumed, run = task()
    fit(run, EVERY_STEP, tmp_path / "killed")
    assert "cannot be read" in caplog.text
    assert torch.equal(resumed.weight, whole.weight)


def test_patience_stops_when_validation_no_longer_rises(tmp_path):
    _, run = task(measures=[0.1, 0.5, 0.4, 0.4, 0.9], patience=2)
    rows = fit(run, SETTINGS, tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(("scores", "kept"), [([0.0, 0.0, 0.0], 1), ([0.1, 0.7, 0.7], 2), ([None, None, None], 3)])
def test_the_kept_epoch_s_measures(scores, kept):
    history = [{"epoch": number, "validation_score": score, "validation_epoch": number} for number, score in enumerate(scores, 1)]
    assert best_measures(history, "score")["validation_epoch"] == kept


def test_nothing_to_validate_keeps_the_last_epoch(tmp_path):
    model, run = task(measures=[None] * 5)
    fit(run, SETTINGS, tmp_path / "a")
    other, run = task(measures=[1.0, 2.0, 3.0, 4.0, 5.0])
    fit(run, SETTINGS, tmp_path / "b")
    assert torch.equal(model.weight, other.weight)


def test_a_broken_loss_stops_with_the_step(tmp_path):
    _, run = task(break_at=13)
    with pytest.raises(UserError, match="loss is nan at step 4 of epoch 2"):
        fit(run, SETTINGS, tmp_path)


def test_a_broken_gradient_stops_before_it_reaches_the_weights(tmp_path):
    model, run = task()
    loss = run.loss

    def with_infinite_slope(x):  # 0 at the root of 0: a finite loss
        return loss(x) + (model.bias - model.bias.detach()).abs().sqrt().sum()

    with pytest.raises(UserError, match="gradient's norm is nan at step 1 of epoch 1"):
        fit(replace(run, loss=with_infinite_slope), SETTINGS, tmp_path)
    assert torch.isfinite(model.weight).all()


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
        fit(run, SETTINGS, tmp_path)


def test_learning_rate_warms_up_and_ends_at_its_fraction():
    factors = [learning_rate_factor(step, 50, warmup_fraction=0.2, final_lr_fraction=0.1) for step in range(50)]
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
