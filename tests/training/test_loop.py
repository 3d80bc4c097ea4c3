"""The loop on a small real regression: schedule, best epoch, resuming after a kill, a loss that breaks."""

import errno
import io
import math
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from assets.errors import UserError
from assets.params import Optimization, Training
from assets.training.distributed import clip_gradients_
from assets.training.loop import fit, train_mode
from assets.training.optimizer import decay_groups
from assets.training.randomness import generator_for
from assets.training.run import Task
from tests.settings import demo_params

SETTINGS = Optimization(
    seed=0,
    device="cpu",
    precision="fp32",
    steps=1,
    epochs=5,
    validations=12,
    min_validation_pictures=1,
    batch_size=8,
    max_batch_share=1.0,
    final_lr_fraction=0.1,
    weight_decay=0.01,
    warmup_fraction=0.2,
    gradient_clip_norm=1.0,
    accumulate=1,
    ema_decay=None,
    gradient_checkpointing=False,
    guards=demo_params().image_tower.guards,
)
TRAINING = Training(processes=1, compile=False, checkpoint_minutes=60.0)
EVERY_STEP = TRAINING.model_copy(update={"checkpoint_minutes": 0.0})


def task(measures=None, break_at=None, die_at=None, **own):
    """`measures`: of each validation, the start's first. `die_at`: (epoch, step) before which the process is killed."""
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
        **own,
    )


def test_it_learns_and_tells(tmp_path):
    _, run = task()
    rows = fit(run, SETTINGS, TRAINING, tmp_path)
    assert [(row["epoch"], row["step"]) for row in rows] == [(epoch, 10 * epoch) for epoch in range(6)]
    assert rows[0]["loss"] is rows[0]["learning_rate"] is rows[0]["gradient_norm"] is None  # the start was measured, not trained
    assert rows[-1]["loss"] < 0.5 * rows[1]["loss"]
    assert rows[-1]["validation_score"] > rows[1]["validation_score"] > rows[0]["validation_score"]


def test_the_best_epoch_is_kept_the_latest_of_equals(tmp_path):
    """Of equal measures the earliest was kept: a recall of 1.0 after the first epoch made every stage keep epoch 1."""
    model, run = task(measures=[0.0, 0.1, 0.7, 0.3, 0.7, 0.2])
    fit(run, SETTINGS, TRAINING, tmp_path / "all")
    best = model.weight.detach().clone()
    # the same schedule, killed after epoch 4: its state is that of epoch 4
    short, run = task(measures=[0.0, 0.1, 0.7, 0.3, 0.7], die_at=(5, 0))
    with pytest.raises(KeyboardInterrupt):
        fit(run, SETTINGS, TRAINING, tmp_path / "killed")
    assert torch.equal(short.weight, best)


def test_a_training_that_makes_the_model_worse_is_undone(tmp_path):
    """The start was no candidate: the best of all epochs was kept, were it worse than what there was before."""
    model, run = task(measures=[0.5, 0.1, 0.3, 0.4, 0.2, 0.1])
    before = model.weight.detach().clone()
    fit(run, SETTINGS, TRAINING, tmp_path)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("measures", [[1.0] * 6, [0.5, 0.9, 0.1, 0.2, 0.3, 0.4]])
def test_a_validation_too_small_to_choose_by_keeps_the_last_epoch(tmp_path, measures):
    """Six or twelve validation pictures kept epoch 1 of ten."""
    model, run = task(measures=measures, cannot_choose="6 validation pictures are too few")
    fit(run, SETTINGS, TRAINING, tmp_path / "a")
    last, run = task(measures=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    fit(run, SETTINGS, TRAINING, tmp_path / "b")
    assert torch.equal(model.weight, last.weight)


def test_short_epochs_are_validated_together(tmp_path):
    """Where an epoch is a few steps, hundreds of validations would take most of the time."""
    seen, (_, run) = [], task()
    batches = run.batches
    run = replace(run, batches=lambda epoch, done: seen.append(epoch) or batches(epoch, done))
    rows = fit(run, SETTINGS.model_copy(update={"steps": 65, "validations": 3}), TRAINING, tmp_path)
    assert seen == [1, 2, 3, 4, 5, 6, 7]  # of ten steps each
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (3, 30), (6, 60), (7, 70)]
    assert rows[-1]["learning_rate"] == pytest.approx(0.1 * SETTINGS.final_lr_fraction)  # the schedule is as long as the run


@pytest.mark.parametrize("validations", [12, 2], ids=["a round per epoch", "rounds of three epochs"])
@pytest.mark.parametrize("training", [TRAINING, EVERY_STEP], ids=["a state per round", "a state per step"])
def test_killed_twenty_times_and_resumed_equals_undisturbed(tmp_path, training, validations):
    settings = SETTINGS.model_copy(update={"validations": validations})

    def with_dropout(**options):
        model, run = task(**options)
        loss = run.loss
        return model, replace(run, loss=lambda x: loss(torch.nn.functional.dropout(x)))

    whole, run = with_dropout()
    rows = fit(run, settings, training, tmp_path / "whole")
    places = sorted(torch.randperm(50, generator=generator_for(1))[:20].tolist())
    for place in places:
        _, run = with_dropout(die_at=(place // 10 + 1, place % 10))
        with pytest.raises(KeyboardInterrupt):
            fit(run, settings, training, tmp_path / "killed")
    resumed, run = with_dropout()
    assert fit(run, settings, training, tmp_path / "killed") == rows
    assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.parametrize(
    "options",
    [{"accumulate": 3}, {"ema_decay": 0.8}, {"precision": "fp16", "accumulate": 3, "ema_decay": 0.8}],
    ids=["accumulating", "averaging", "all and fp16"],
)
def test_every_option_resumes_bit_equal(tmp_path, options):
    settings = SETTINGS.model_copy(update=options)
    whole, run = task()
    rows = fit(run, settings, EVERY_STEP, tmp_path / "whole")
    for place in (4, 13, 28, 30, 49):
        _, run = task(die_at=(place // 10 + 1, place % 10))
        with pytest.raises(KeyboardInterrupt):
            fit(run, settings, EVERY_STEP, tmp_path / "killed")
    resumed, run = task()
    assert fit(run, settings, EVERY_STEP, tmp_path / "killed") == rows
    assert torch.equal(resumed.weight, whole.weight)


def test_accumulated_batches_are_the_big_batch_for_arc_margin(tmp_path):
    from assets.image_tower.losses import arc_margin_loss

    def trained(size, accumulate):
        torch.manual_seed(0)
        model, centers = torch.nn.Linear(6, 5), torch.nn.Parameter(torch.randn(7, 5))

        def batches(epoch, done):
            drawn = generator_for(epoch)
            inputs, labels = torch.randn(24, 6, generator=drawn), torch.randint(7, (24,), generator=drawn)
            yield from list(zip(inputs.split(size), labels.split(size), strict=True))[done:]

        _, plain = task()
        run = replace(
            plain,
            modules={"model": model, "centers": torch.nn.ParameterList([centers])},
            parameter_groups=decay_groups(dict(model.named_parameters()) | {"centers": centers}, 0.01, 0.01),
            batches=batches,
            steps_per_epoch=24 // size,
            loss=lambda batch: arc_margin_loss(torch.nn.functional.normalize(model(batch[0]), dim=1), centers, batch[1], 30.0, 0.1),
            validate=lambda: {"score": None},
        )
        rows = fit(run, SETTINGS.model_copy(update={"accumulate": accumulate}), TRAINING, tmp_path / f"{size}")
        return model.weight.detach(), [row["loss"] for row in rows[1:]], [row["learning_rate"] for row in rows[1:]]

    small, big = trained(4, 3), trained(12, 1)
    torch.testing.assert_close(small[0], big[0], atol=1e-5, rtol=0)
    assert small[1] == pytest.approx(big[1], rel=1e-4)
    assert small[2] == pytest.approx(big[2])


def test_batches_left_over_at_an_epoch_s_end_are_a_step_of_their_own(tmp_path):
    _, run = task()
    rows = fit(run, SETTINGS.model_copy(update={"accumulate": 4}), TRAINING, tmp_path)  # 10 batches: 4, 4, 2
    assert rows[-1]["learning_rate"] == pytest.approx(0.1 * SETTINGS.final_lr_fraction)
    assert rows[-1]["loss"] < rows[1]["loss"]


def test_the_averaged_weights_are_validated_and_kept(tmp_path):
    seen = []
    model, plain = task(measures=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    after_each, real = [], torch.optim.AdamW.step

    def stepped(self, *arguments, **named):
        result = real(self, *arguments, **named)
        after_each.append(model.weight.detach().clone())
        return result

    def validate():
        seen.append(model.weight.detach().clone())
        return plain.validate()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stepped)
        fit(replace(plain, validate=validate), SETTINGS.model_copy(update={"ema_decay": 0.9}), TRAINING, tmp_path)
    average = after_each[0]
    for number, weight in enumerate(after_each[1:], 2):
        average = 0.9 * average + 0.1 * weight
        if number % 10 == 0:
            torch.testing.assert_close(seen[number // 10], average)
    torch.testing.assert_close(model.weight, average)
    assert not torch.allclose(model.weight, after_each[-1])


def test_fp16_gradients_are_clipped_as_they_are_not_as_they_were_scaled(tmp_path, monkeypatch):
    norms, real = [], clip_gradients_
    monkeypatch.setattr("assets.training.loop.clip_gradients_", lambda *given: norms.append(real(*given)) or norms[-1])
    weights = []
    for precision in ("fp32", "fp16"):  # the model's own arithmetic is fp32 in both
        model, run = task()
        fit(run, SETTINGS.model_copy(update={"precision": precision}), TRAINING, tmp_path / precision)
        weights.append(model.weight.detach())
    torch.testing.assert_close(torch.stack(norms[:50]), torch.stack(norms[50:]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*weights, atol=1e-4, rtol=0)


def test_without_a_limit_gradients_are_not_clipped(tmp_path):
    """The same weights as with a limit that no gradient reaches, other weights than with one that all exceed."""
    weights = {}
    for limit in (None, 1e6, 1e-9):
        model, run = task()
        fit(run, SETTINGS.model_copy(update={"gradient_clip_norm": limit}), TRAINING, tmp_path / str(limit))
        weights[limit] = model.weight.detach()
    assert torch.equal(weights[None], weights[1e6])
    assert not torch.equal(weights[None], weights[1e-9])


def test_an_fp16_step_that_overflows_is_left_out_and_the_scale_halved(tmp_path):
    model, run = task()
    loss, steps = run.loss, count()

    def overflowing(x):
        value = loss(x)
        if next(steps) == 2:
            value.register_hook(lambda gradient: gradient * math.inf)
        return value

    rows = fit(replace(run, loss=overflowing), SETTINGS.model_copy(update={"precision": "fp16", "epochs": 1}), TRAINING, tmp_path)
    state = torch.load(next(tmp_path.glob("*.pt")), weights_only=True)
    assert state["scaler"]["scale"] == 2.0**15
    assert torch.isfinite(model.weight).all()
    assert math.isfinite(rows[1]["gradient_norm"])


def test_an_fp16_step_that_overflows_leaves_sparse_rows_alone_too(tmp_path):
    model, run = task()
    rows = torch.nn.Parameter(torch.ones(3, 2))
    run = replace(run, modules={"model": model, "rows": torch.nn.ParameterList([rows])}, sparse_groups=[{"params": [rows], "lr": 0.1}])
    dense, steps, seen = run.loss, count(), []

    def loss(x):
        seen.append(rows.detach().clone())
        value = dense(x)
        if next(steps) == 2:
            value.register_hook(lambda gradient: gradient * math.nan)
        return value + torch.nn.functional.embedding(torch.tensor([1]), rows, sparse=True).sum()

    fit(replace(run, loss=loss), SETTINGS.model_copy(update={"precision": "fp16", "epochs": 1}), TRAINING, tmp_path)
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[1], seen[2])
    assert torch.isfinite(rows).all()
    assert torch.equal(rows[[0, 2]], torch.ones(2, 2))


def test_a_loss_that_rises_and_a_logit_scale_that_runs_away_stop_the_run(tmp_path):
    _, run = task()
    with pytest.raises(UserError, match=r"the loss has risen to .* epoch [12]\. The likely cause .* \(it is 1"):
        fit(
            replace(run, parameter_groups=[{"params": list(run.modules["model"].parameters()), "lr": 100.0}]),
            SETTINGS,
            TRAINING,
            tmp_path / "a",
        )

    model, run = task()
    scale = torch.nn.Parameter(torch.tensor(2.0))
    run = replace(run, modules={"model": model, "scale": torch.nn.ParameterList([scale])}, logit_scale=scale)
    run.parameter_groups.append({"params": [scale], "lr": 1.0})
    loss = run.loss
    with pytest.raises(UserError, match=r"logit scale has gone from 7\.39 to"):
        fit(replace(run, loss=lambda x: loss(x) - scale), SETTINGS, TRAINING, tmp_path / "b")


def test_a_run_that_a_guard_stopped_goes_on_from_the_last_validated_epoch_with_the_guard_loosened(tmp_path):
    """What the message promises."""

    def guarded(good):
        model, run = task()

        def validate():
            good.append(model.weight.detach().clone())
            return {"score": 0.0, "spread": 0.5 if len(good) < 4 else 0.01}

        return replace(run, validate=validate)

    good = []
    with pytest.raises(UserError, match=r"(?s)collapsed.*after epoch 3.*loosen the guard .* goes on from the end of epoch 2\."):
        fit(guarded(good), SETTINGS, EVERY_STEP, tmp_path)
    newest = max(tmp_path.iterdir())
    assert newest.name == "round00003-step000000000.pt"
    assert torch.equal(torch.load(newest, weights_only=True)["modules"]["model"]["weight"], good[2])
    loosened = SETTINGS.model_copy(update={"guards": SETTINGS.guards.model_copy(update={"min_spread": None})})
    done_again = []
    assert [row["epoch"] for row in fit(guarded(done_again), loosened, EVERY_STEP, tmp_path)] == [0, 1, 2, 3, 4, 5]
    assert len(done_again) == 3


@pytest.mark.parametrize(("loss", "stopped"), [(0.01, False), (2.0, True)])
def test_a_growing_gradient_stops_no_run_whose_loss_starts_near_zero(tmp_path, loss, stopped):
    """A folder of twenty classes, which its start tells apart, ended with «the gradient's norm has risen to 320 times»."""
    model, run = task()
    slopes = iter([1e-3] * 5 + [5.0] * 45)
    flat = replace(run, loss=lambda _: loss + next(slopes) * (model.weight - model.weight.detach()).sum())
    if stopped:
        with pytest.raises(UserError, match=r"the gradient's norm has risen to 10, .* times"):
            fit(flat, SETTINGS, TRAINING, tmp_path)
    else:
        assert fit(flat, SETTINGS, TRAINING, tmp_path)[-1]["epoch"] == 5


def test_a_run_that_a_guard_stopped_in_its_first_epoch_has_nothing_to_go_on_from(tmp_path):
    _, run = task()
    spreads = iter([0.5, 0.01])
    with pytest.raises(UserError, match="collapsed") as stopped:
        fit(replace(run, validate=lambda: {"score": 0.0, "spread": next(spreads)}), SETTINGS, EVERY_STEP, tmp_path)
    assert "goes on" not in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_locked_parameters_are_not_written_with_the_state(tmp_path):
    model, run = task()
    locked = torch.nn.Linear(200, 200).requires_grad_(False)
    whole = torch.nn.Sequential(model, locked)
    before = locked.weight.clone()
    with pytest.raises(KeyboardInterrupt):
        fit(replace(task(die_at=(2, 0))[1], modules={"whole": whole}), SETTINGS, TRAINING, tmp_path)
    assert max(state.stat().st_size for state in tmp_path.iterdir()) < before.nbytes / 4
    fit(replace(run, modules={"whole": whole}), SETTINGS, TRAINING, tmp_path)
    assert torch.equal(locked.weight, before)


def test_a_state_that_a_disk_has_lost_is_replaced_by_the_one_before(tmp_path, caplog):
    whole, run = task()
    fit(run, SETTINGS, EVERY_STEP, tmp_path / "whole")
    _, run = task(die_at=(2, 4))
    with pytest.raises(KeyboardInterrupt):
        fit(run, SETTINGS, EVERY_STEP, tmp_path / "killed")
    states = sorted((tmp_path / "killed").iterdir())
    assert [state.name for state in states] == [f"round00002-step00000000{step}.pt" for step in (0, 3, 4)]
    states[-1].write_bytes(states[-1].read_bytes()[:100])
    resumed, run = task()
    fit(run, SETTINGS, EVERY_STEP, tmp_path / "killed")
    assert "cannot be read" in caplog.text
    assert torch.equal(resumed.weight, whole.weight)


def test_nothing_to_validate_keeps_the_last_epoch(tmp_path):
    model, run = task(measures=[None] * 6)
    fit(run, SETTINGS, TRAINING, tmp_path / "a")
    other, run = task(measures=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    fit(run, SETTINGS, TRAINING, tmp_path / "b")
    assert torch.equal(model.weight, other.weight)


def test_a_broken_loss_stops_with_the_step(tmp_path):
    _, run = task(break_at=13)
    with pytest.raises(UserError, match="loss is nan at step 4 of epoch 2"):
        fit(run, SETTINGS, TRAINING, tmp_path / "state")
    assert not (tmp_path / "state").exists()  # the same settings would end there again, and no others would find it


def test_a_broken_gradient_stops_before_it_reaches_the_weights(tmp_path):
    model, run = task()
    loss = run.loss

    def with_infinite_slope(x):  # 0 at the root of 0: a finite loss
        return loss(x) + (model.bias - model.bias.detach()).abs().sqrt().sum()

    with pytest.raises(UserError, match="gradient's norm is nan at step 1 of epoch 1"):
        fit(replace(run, loss=with_infinite_slope), SETTINGS, TRAINING, tmp_path)
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
        fit(run, SETTINGS, TRAINING, tmp_path)


def test_locked_parts_keep_their_batch_norm_statistics():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4))
    module[:2].requires_grad_(False)
    train_mode(module, lock_batch_norm=True)
    module(torch.randn(2, 3, 5, 5))
    assert module[1].running_mean.abs().sum() == module[3].running_mean.abs().sum() == 0  # a small batch moves none
    train_mode(module, lock_batch_norm=False)
    module(torch.randn(2, 3, 5, 5))
    assert module[1].running_mean.abs().sum() == 0
    assert module[3].running_mean.abs().sum() > 0
