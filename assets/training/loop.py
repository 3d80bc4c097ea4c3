"""The training loop: steps with clipping and a warm-up-and-cosine schedule, validation, guards, the best state kept; resumable.

What a step computes and what validation measures are functions given by the stage. In several processes each runs the loop on its part
of every batch, gradients are averaged by DistributedDataParallel, and the first process alone validates and writes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from assets.errors import UserError
from assets.params import Optimization, Training
from assets.progress import report, track
from assets.training import guards, length
from assets.training.distributed import clip_gradients_, from_first, mean_over_ranks, rank, world_size
from assets.training.optimizer import learning_rate_factor, optimizers
from assets.training.run import Batch, Run, Task, parameters_of
from assets.training.selection import best_row, measures_of
from assets.training.state import forget_state, forget_unvalidated, load_trained, resume, save, trained_state

logger = logging.getLogger(__name__)

SMALLEST_SCALE = 1.0  # of fp16 gradients: when they overflow at this scale, the scaling is not the reason


def fit(task: Task[Batch], settings: Optimization, training: Training, state_dir: Path) -> list[dict[str, Any]]:
    """Train; returns the history. Its first row, epoch 0, has the measures of the start; each other one those after a round of epochs:

    epoch and step (of the optimiser), both from the beginning; loss, learning_rate, gradient_norm (the median before clipping), None in
    the first row; validation measures. The modules end with the weights of `selection.best_row` of all rows, or of all but the start's
    where that is no candidate.

    State is kept in `state_dir` after every round and every `training.checkpoint_minutes`, so that a killed run goes on from there; on
    a CPU its weights end bit-equal to an undisturbed run's. A loss or gradient that is not finite, or a guard of `settings.guards`, stops
    the run with UserError. With `settings.ema_decay` the averaged weights are validated and left in the modules.
    """
    run = _prepared(task, settings, training, state_dir)
    resume(run)
    progress = run.progress
    if not progress.history:
        _validate(run)
    while progress.validated_epoch < run.epochs:
        _train_round(run)
        _validate(run)
        save(run)
    for name, module in task.modules.items():
        load_trained(module, progress.best[name])
    return progress.history


def _prepared(task: Task[Batch], settings: Optimization, training: Training, state_dir: Path) -> Run[Batch]:
    """The run at its start: with what moves the weights."""
    epochs = length.epochs(settings, task.steps_per_epoch)
    total_steps = epochs * length.steps_per_epoch(settings, task.steps_per_epoch)
    moved_by = optimizers(task.parameter_groups, task.sparse_groups)
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: learning_rate_factor(
                step, total_steps, warmup_fraction=settings.warmup_fraction, final_lr_fraction=settings.final_lr_fraction
            ),
        )
        for optimizer in moved_by
    ]
    first = parameters_of(moved_by[0])
    device = first[0].device if first else torch.device("cpu")
    return Run(
        task,
        _averaging_gradients(task),
        settings,
        training,
        state_dir,
        device,
        moved_by,
        schedulers,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16"),
        averages={
            name: AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
            for name, module in task.modules.items()
            if settings.ema_decay is not None
        },
        logit_scale_at_start=float(task.logit_scale.detach().exp()) if task.logit_scale is not None else None,
        epochs=epochs,
        epochs_per_round=length.epochs_per_round(settings, epochs),
    )


def _validate(run: Run[Batch]) -> None:
    """Add the measures of the weights as they are to the history, and keep these weights if they are the best; begin the next round."""
    task, progress, scheduler = run.task, run.progress, run.schedulers[0]
    for module in task.modules.values():
        module.eval()
    epoch = run.round_ends if progress.history else 0
    with _averaged(run):
        measures, trouble = from_first(lambda: _measured(run))
        if trouble:
            raise _stopped_by_guard(run, trouble, f"after epoch {epoch}", float(scheduler.base_lrs[0]))
        row = {
            "epoch": epoch,
            "step": epoch * length.steps_per_epoch(run.settings, task.steps_per_epoch),
            "loss": float(torch.stack([loss.cpu() for loss in progress.losses]).mean()) if epoch else None,
            "learning_rate": float(scheduler.base_lrs[0] * scheduler.lr_lambdas[0](scheduler.last_epoch - 1)) if epoch else None,
            "gradient_norm": guards.typical(progress.norms) if progress.norms else None,
            **({"logit_scale": float(task.logit_scale.detach().exp())} if task.logit_scale is not None else {}),
            **{f"validation_{name}": value for name, value in measures.items()},
        }
        progress.history.append(row)
        candidates = progress.history if task.start_is_candidate else progress.history[1:]
        if candidates and best_row(candidates, task.select_by, choosing=task.cannot_choose is None) is row:
            progress.best = {
                name: {key: value.detach().clone() for key, value in trained_state(module).items()} for name, module in task.modules.items()
            }
    progress.losses, progress.norms = [], []
    logger.info("%s: %s", f"epoch {epoch} of {run.epochs}" if epoch else "at the start", _spell(row))


def _measured(run: Run[Batch]) -> tuple[dict[str, float | None], str | None]:
    """(measures, what is wrong with them or None)."""
    measures = run.task.validate()
    if not run.progress.history:
        return measures, None
    start = {name.removeprefix("validation_"): value for name, value in measures_of(run.progress.history[0]).items()}
    return measures, guards.trouble_in_measures(measures, start, run.task.noise, run.settings.guards)


def train_mode(module: torch.nn.Module, *, lock_batch_norm: bool) -> None:
    """Training mode for all but locked parts: where all parameters are locked, batch-norm statistics and dropout are locked too.

    With `lock_batch_norm`, all batch norms use and keep the statistics that they have: those of a small batch say little.
    """
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        locked = parameters and not any(parameter.requires_grad for parameter in parameters)
        if locked or (lock_batch_norm and isinstance(part, _BatchNorm)):
            part.eval()


class _Loss(torch.nn.Module):
    """A task's loss as the forward pass of what it trains, which is how DistributedDataParallel finds the parameters."""

    def __init__(self, task: Task[Any]) -> None:
        super().__init__()
        self.trained = torch.nn.ModuleDict({name: module for name, module in task.modules.items() if name not in task.sharded})
        self.loss = task.loss

    def forward(self, batch: Any) -> torch.Tensor:
        return self.loss(batch)


def _averaging_gradients(task: Task[Batch]) -> Callable[[Batch], torch.Tensor]:
    if world_size() == 1:
        return task.loss
    wrapped: Any = DistributedDataParallel(_Loss(task), forward_sync_buffers=False)  # batch statistics are shared already
    return wrapped


def _train_round(run: Run[Batch]) -> None:
    """Train the epochs up to the next validation; of a resumed round, what is left of them."""
    task, settings, progress = run.task, run.settings, run.progress
    for module in task.modules.values():
        train_mode(module, lock_batch_norm=task.lock_batch_norm)
    first, last, done = progress.validated_epoch + 1, run.round_ends, len(progress.losses)
    total = (last - first + 1) * task.steps_per_epoch
    begun = saved = time.monotonic()
    what = f"epoch {first}" if first == last else f"epoch {first}–{last}"
    batches = iter(track(_batches(task, *run.place, last), total - done, f"{what} of {run.epochs}", "steps"))
    while len(progress.losses) < total:
        # batches left over at an epoch's end are a step of their own
        together = min(settings.accumulate, task.steps_per_epoch - len(progress.losses) % task.steps_per_epoch)
        for optimizer in run.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for batch in itertools.islice(batches, together):
            loss = run.loss(batch)
            progress.losses.append(mean_over_ranks(loss.detach()))
            if not torch.isfinite(progress.losses[-1]):
                raise _broken(run, f"the loss is {progress.losses[-1].item()}")
            run.scaler.scale(loss / together).backward()
        _step(run)
        now = time.monotonic()
        if from_first(lambda: now - saved >= 60 * run.training.checkpoint_minutes):  # noqa: B023
            save(run)
            saved = time.monotonic()
    for _ in batches:  # its end: the bar closes
        raise AssertionError("a round has as many batches as its epochs")
    pace = (len(progress.losses) - done) * task.images_per_step / (time.monotonic() - begun)
    logger.info("%s: %.0f images/s", what, pace)
    report(images_per_second=round(pace, 2))


def _batches(task: Task[Batch], epoch: int, done: int, last: int) -> Iterator[Batch]:
    """The batches from the one after the first `done` of `epoch` to the end of the epoch `last`."""
    for number in range(epoch, last + 1):
        count = done
        for batch in task.batches(number, done):
            count += 1
            yield batch
        assert count == task.steps_per_epoch, f"{count} batches in epoch {number}, where steps_per_epoch is {task.steps_per_epoch}"
        done = 0


def _step(run: Run[Batch]) -> None:
    """One step of the optimiser on the gradients that the batches have left. It is left out where fp16 gradients overflow their scale."""
    progress, limits = run.progress, run.settings.guards
    for optimizer in run.optimizers:
        run.scaler.unscale_(optimizer)  # gradients are clipped as they are, not as they were scaled
    sharded = run.sharded_parameters
    replicated = [parameter for parameter in run.parameters if all(parameter is not other for other in sharded)]
    norm = clip_gradients_(replicated, sharded, run.settings.gradient_clip_norm)
    finite = bool(torch.isfinite(norm))
    if not finite and run.scaler.get_scale() <= SMALLEST_SCALE:  # such a step would make every weight nan
        raise _broken(run, f"the gradient's norm is {norm.item()}")
    rate = _rate(run)
    for optimizer in run.optimizers if finite else []:  # of all or of none: the gradients of one of them may overflow alone
        run.scaler.step(optimizer)
    run.scaler.update()
    if not finite:
        return
    for scheduler in run.schedulers:
        scheduler.step()
    for name, average in run.averages.items():
        average.update_parameters(run.task.modules[name])
    progress.norms.append(norm.detach())
    for name, values in (("loss", progress.losses), ("norm", progress.norms)):
        if name not in progress.first and len(values) >= guards.FIRST:
            progress.first[name] = float(torch.stack(values[: guards.FIRST]).min())
    first = guards.comparable(progress.first).get
    loss_floor = first("loss", 0.0) + guards.ROOM
    clip = run.settings.gradient_clip_norm or 0.0  # below it no gradient is clipped
    trouble = guards.trouble_in_steps("loss", progress.losses, first("loss"), limits.max_loss_growth, loss_floor)
    trouble = trouble or guards.trouble_in_steps("gradient's norm", progress.norms, first("norm"), limits.max_gradient_growth, clip)
    if run.task.logit_scale is not None and run.logit_scale_at_start is not None:
        scale = float(run.task.logit_scale.detach().exp())
        trouble = trouble or guards.trouble_in_logit_scale(scale, run.logit_scale_at_start, limits.max_logit_scale_change)
    if trouble:
        raise _stopped_by_guard(run, trouble, _place(run), rate)


@contextlib.contextmanager
def _averaged(run: Run[Batch]) -> Iterator[None]:
    """While it lasts, the modules have their averaged weights, if there are any."""
    modules = [run.task.modules[name] for name in run.averages]
    current = [{key: value.detach().clone() for key, value in module.state_dict().items()} for module in modules]
    for module, average in zip(modules, run.averages.values(), strict=True):
        module.load_state_dict(average.module.state_dict())
    try:
        yield
    finally:
        for module, state in zip(modules, current, strict=True):
            module.load_state_dict(state)


def _place(run: Run[Batch]) -> str:
    epochs, before = divmod(len(run.progress.losses) - 1, run.task.steps_per_epoch)  # of the last batch
    return f"at step {before + 1} of epoch {run.progress.validated_epoch + epochs + 1}"


def _rate(run: Run[Batch]) -> float:
    return float(run.schedulers[0].get_last_lr()[0])


def _stopped_by_guard(run: Run[Batch], trouble: str, where: str, rate: float) -> UserError:
    """What to raise. The last validated state is kept, for a run with looser guards to go on from."""
    one_is_left = forget_unvalidated(run)
    kept = (
        f" If you take this for a false alarm, loosen the guard in params.yaml (guards) and run again: the run goes on from the end of"
        f" epoch {run.progress.validated_epoch}. With any other change it begins anew."
        if one_is_left
        else ""
    )
    return UserError(f"{trouble} {where}. {_advice(run, rate)}{kept}")


def _broken(run: Run[Batch], trouble: str) -> UserError:
    """What to raise where a number is not finite. A run with the same settings would come to the same end, so no state is kept."""
    if rank() == 0:
        forget_state(run.state_dir)
    return UserError(f"{trouble} {_place(run)}. {_advice(run, _rate(run))}")


def _advice(run: Run[Batch], rate: float) -> str:
    half = " or set precision: fp32," if run.settings.precision != "fp32" else ""
    return f"The likely cause is a too high learning rate (it is {rate:.2g}): lower it, first to a tenth,{half} or raise warmup_fraction."


def _spell(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float))
