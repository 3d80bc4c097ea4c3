"""The training loop: steps with clipping and a warm-up-and-cosine schedule, validation, guards, the best epoch kept; resumable.

What a step computes and what validation measures are functions given by the stage. In several processes each runs the loop on its part
of every batch, gradients are averaged by DistributedDataParallel, and the first process alone validates and writes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from assets.errors import UserError
from assets.params import Optimization, Training
from assets.progress import report, track
from assets.training import guards
from assets.training.distributed import clip_gradients_, from_first, mean_over_ranks, rank, world_size
from assets.training.optimizer import learning_rate_factor, optimizers
from assets.training.run import Batch, Run, Task, parameters_of
from assets.training.state import forget_state, forget_unvalidated, load_trained, resume, save, trained_state

logger = logging.getLogger(__name__)

SMALLEST_SCALE = 1.0  # of fp16 gradients: when they overflow at this scale, the scaling is not the reason


def fit(task: Task[Batch], settings: Optimization, training: Training, state_dir: Path) -> list[dict[str, Any]]:
    """Train; returns one row per epoch: epoch, loss, learning_rate, gradient_norm (the median before clipping), validation measures.

    State is kept in `state_dir` after every epoch and every `training.checkpoint_minutes`, so that a killed run goes on from there; on
    a CPU its weights end bit-equal to an undisturbed run's. A loss or gradient that is not finite, or a guard of `settings.guards`, stops
    the run with UserError. With `settings.ema_decay` the averaged weights are validated and left in the modules.
    """
    total_steps = settings.epochs * math.ceil(task.steps_per_epoch / settings.accumulate)
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
    run = Run(
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
    )
    resume(run)
    progress = run.progress
    history = progress.history
    while progress.epoch <= settings.epochs:
        if task.patience is not None and len(history) - _best_epoch(history, task.select_by) >= task.patience:
            break
        _train_epoch(run)
        with _averaged(run):
            measures, trouble = from_first(lambda: _validated(run))
            if trouble:
                raise _stopped_by_guard(run, trouble, f"after epoch {progress.epoch}", float(schedulers[0].base_lrs[0]))
            row = {
                "epoch": progress.epoch,
                "loss": float(torch.stack([loss.cpu() for loss in progress.losses]).mean()),
                "learning_rate": float(schedulers[0].base_lrs[0] * schedulers[0].lr_lambdas[0](schedulers[0].last_epoch - 1)),
                "gradient_norm": guards.typical(progress.norms) if progress.norms else None,
                **({"logit_scale": float(task.logit_scale.detach().exp())} if task.logit_scale is not None else {}),
                **{f"validation_{name}": value for name, value in measures.items()},
            }
            history.append(row)
            if _best_epoch(history, task.select_by) == row["epoch"]:
                progress.best = {
                    name: {key: value.detach().clone() for key, value in trained_state(module).items()}
                    for name, module in task.modules.items()
                }
        progress.losses, progress.norms = [], []
        logger.info("epoch %d of %d: %s", row["epoch"], settings.epochs, _spell(row))
        save(run)
    for name, module in task.modules.items():
        load_trained(module, progress.best[name])
    measured = best_measures(history, task.select_by)[f"validation_{task.select_by}"] is not None
    why = f"the best by validation {task.select_by}" if measured else "the last: there are no validation images to choose by"
    logger.info("kept epoch %d, %s", _best_epoch(history, task.select_by), why)
    return history


def best_measures(history: list[dict[str, Any]], select_by: str) -> dict[str, Any]:
    """The validation measures of the epoch that `fit` kept."""
    best = history[_best_epoch(history, select_by) - 1]
    return {name: value for name, value in best.items() if name.startswith("validation_")}


def train_mode(module: torch.nn.Module) -> None:
    """Training mode for all but locked parts: where all parameters are locked, batch-norm statistics and dropout are locked too."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
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


def _validated(run: Run[Batch]) -> tuple[dict[str, float | None], str | None]:
    """(measures, what is wrong with them or None)."""
    measures = run.task.validate()
    return measures, guards.trouble_in_measures(measures, run.task.start, run.task.names, run.settings.guards)


def _train_epoch(run: Run[Batch]) -> None:
    task, settings, progress = run.task, run.settings, run.progress
    for module in task.modules.values():
        train_mode(module)
    done = len(progress.losses)
    begun = saved = time.monotonic()
    what = f"epoch {progress.epoch} of {settings.epochs}"
    batches = iter(track(task.batches(progress.epoch, done), task.steps_per_epoch - done, what, "steps"))
    while together := min(settings.accumulate, task.steps_per_epoch - len(progress.losses)):
        for optimizer in run.optimizers:
            optimizer.zero_grad(set_to_none=True)
        before = len(progress.losses)
        for batch in itertools.islice(batches, together):
            loss = run.loss(batch)
            progress.losses.append(mean_over_ranks(loss.detach()))
            if not torch.isfinite(progress.losses[-1]):
                raise _broken(run, f"the loss is {progress.losses[-1].item()}")
            run.scaler.scale(loss / together).backward()
        assert len(progress.losses) == before + together, "fewer batches than steps_per_epoch"
        _step(run)
        now = time.monotonic()
        if from_first(lambda: now - saved >= 60 * run.training.checkpoint_minutes):  # noqa: B023
            save(run)
            saved = time.monotonic()
    for _ in batches:  # its end: the bar closes, the pace is logged
        raise AssertionError("more batches than steps_per_epoch")
    for module in task.modules.values():
        module.eval()
    pace = (len(progress.losses) - done) * task.images_per_step / (time.monotonic() - begun)
    logger.info("epoch %d: %.0f images/s", progress.epoch, pace)
    report(images_per_second=round(pace, 2))


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
    first = progress.first.get
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
    return f"at step {len(run.progress.losses)} of epoch {run.progress.epoch}"


def _rate(run: Run[Batch]) -> float:
    return float(run.schedulers[0].get_last_lr()[0])


def _stopped_by_guard(run: Run[Batch], trouble: str, where: str, rate: float) -> UserError:
    """What to raise. The last validated state is kept, for a run with looser guards to go on from."""
    one_is_left = forget_unvalidated(run)
    kept = (
        f" If you take this for a false alarm, loosen the guard in params.yaml (guards) and run again: the run goes on from the end of"
        f" epoch {run.progress.epoch - 1}. With any other change it begins anew."
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


def _best_epoch(history: list[dict[str, Any]], select_by: str) -> int:
    """The earliest epoch with the highest measure; the last one where there is nothing to measure (None)."""
    measures = [row[f"validation_{select_by}"] for row in history]
    if any(measure is None for measure in measures):
        return len(history)
    return max(range(len(history)), key=lambda row: (measures[row], -row)) + 1 if history else 0


def _spell(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float))
