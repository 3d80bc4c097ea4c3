"""The training loop: epochs of steps with clipping and a warm-up-and-cosine schedule, validation, the best epoch kept; resumable.

What a step computes and what validation measures are functions given by the stage.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import pickle
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from assets import artifacts
from assets.errors import UserError
from assets.params import Training
from assets.progress import report, track

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1]
STATES_KEPT = 2  # the last ones: should a disk lose the newest, there is one before it

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """One training run. `modules` are what is trained: their state is saved for resuming, and left at the best epoch's."""

    modules: dict[str, torch.nn.Module]
    parameter_groups: list[dict[str, Any]]
    # (epoch, counted from 1; done): that epoch's batches without the first `done`. The same epoch always gives the same.
    batches: Callable[[int, int], Iterable[Batch]]
    steps_per_epoch: int
    loss: Callable[[Batch], torch.Tensor]  # scalar
    validate: Callable[[], dict[str, float | None]]  # measures by name; None where there is nothing to measure
    select_by: str  # the measure whose highest value marks the best epoch
    images_per_step: int

    patience: int | None  # epochs without a better validation before stopping; None: all epochs


@dataclass
class Progress:
    """How far a run has come, beside the weights."""

    history: list[dict[str, Any]] = field(default_factory=list)  # a row a finished epoch
    best: dict[str, Any] = field(default_factory=dict)  # the modules' state after the best of them
    losses: list[torch.Tensor] = field(default_factory=list)  # of the steps done in the epoch under way

    @property
    def epoch(self) -> int:
        return len(self.history) + 1


def fit(task: Task[Batch], settings: Training, state_dir: Path) -> list[dict[str, Any]]:
    """Train; returns a row an epoch (epoch, loss, learning_rate, validation measures).

    State is kept in `state_dir` after every epoch and every `settings.checkpoint_minutes`, so that a killed run goes on from there; on
    a CPU its weights end bit-equal to an undisturbed run's. A loss or gradient that is not finite stops the run with UserError.
    """
    optimizer = torch.optim.AdamW(task.parameter_groups)
    total_steps = settings.epochs * task.steps_per_epoch
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(
            step, total_steps, warmup_fraction=settings.warmup_fraction, final_lr_fraction=settings.final_lr_fraction
        ),
    )
    progress = _resume(task, optimizer, scheduler, state_dir)
    history = progress.history
    while progress.epoch <= settings.epochs:
        if task.patience is not None and len(history) - _best_epoch(history, task.select_by) >= task.patience:
            break
        _train_epoch(task, settings, optimizer, scheduler, progress, state_dir)
        row = {
            "epoch": progress.epoch,
            "loss": float(torch.stack([loss.cpu() for loss in progress.losses]).mean()),
            "learning_rate": float(scheduler.base_lrs[0] * scheduler.lr_lambdas[0](progress.epoch * task.steps_per_epoch - 1)),
            **{f"validation_{name}": value for name, value in task.validate().items()},
        }
        history.append(row)
        progress.losses = []
        logger.info("epoch %d of %d: %s", row["epoch"], settings.epochs, _spell(row))
        if _best_epoch(history, task.select_by) == row["epoch"]:
            progress.best = {name: copy.deepcopy(module.state_dict()) for name, module in task.modules.items()}
        _save(task, optimizer, scheduler, progress, state_dir)
    for name, module in task.modules.items():
        module.load_state_dict(progress.best[name])
    measured = best_measures(history, task.select_by)[f"validation_{task.select_by}"] is not None
    why = f"the best by validation {task.select_by}" if measured else "the last: there are no validation images to choose by"
    logger.info("kept epoch %d, %s", _best_epoch(history, task.select_by), why)
    return history


def best_measures(history: list[dict[str, Any]], select_by: str) -> dict[str, Any]:
    """The validation measures of the epoch that `fit` kept."""
    best = history[_best_epoch(history, select_by) - 1]
    return {name: value for name, value in best.items() if name.startswith("validation_")}


def forget_state(state_dir: Path) -> None:
    """Remove a finished run's state: call it once the result is safely written."""
    shutil.rmtree(state_dir, ignore_errors=True)


def learning_rate_factor(step: int, total_steps: int, *, warmup_fraction: float, final_lr_fraction: float) -> float:
    """Linear warm-up from near 0 to 1, then a cosine to `final_lr_fraction` at the last step."""
    warmup = round(warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
    return final_lr_fraction + (1 - final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2


def decay_groups(parameters: dict[str, torch.nn.Parameter], learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups: matrices and filters decay, norms and biases (one dimension or none) do not."""
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    return [
        {"params": [p for p in trained.values() if p.ndim > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [p for p in trained.values() if p.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
    ]


def train_mode(module: torch.nn.Module) -> None:
    """Training mode for all but locked parts: where all parameters are locked, batch-norm statistics and dropout are too."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def state_dir_for(stage: str, determined_by: dict[str, Any]) -> Path:
    """Where a run of `<stage package>` or `<stage package>-<recipe>` keeps its state.

    Named by a hash of all that determines it, code included, so that a changed setting or loss never resumes foreign state.
    """
    code = {name: artifacts.sha256_of(ASSETS / name) for name in (stage.partition("-")[0], "training", "clip", "metrics")}
    key = hashlib.sha256(json.dumps([determined_by, code], sort_keys=True).encode()).hexdigest()[:16]
    return artifacts.WORK / "training" / f"{stage}-{key}"


def _train_epoch(
    task: Task[Batch],
    settings: Training,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    progress: Progress,
    state_dir: Path,
) -> None:
    for module in task.modules.values():
        train_mode(module)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    done = len(progress.losses)
    begun = saved = time.monotonic()
    what = f"epoch {progress.epoch} of {settings.epochs}"
    for step, batch in enumerate(track(task.batches(progress.epoch, done), task.steps_per_epoch - done, what, "steps"), done + 1):
        loss = task.loss(batch)
        if not torch.isfinite(loss):
            raise _broken("loss", loss, step, progress.epoch, scheduler)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip_norm)
        if not torch.isfinite(norm):  # such a step would make every weight nan
            raise _broken("gradient's norm", norm, step, progress.epoch, scheduler)
        optimizer.step()
        scheduler.step()
        progress.losses.append(loss.detach())
        if time.monotonic() - saved >= 60 * settings.checkpoint_minutes:
            _save(task, optimizer, scheduler, progress, state_dir)
            saved = time.monotonic()
    for module in task.modules.values():
        module.eval()
    rate = (len(progress.losses) - done) * task.images_per_step / (time.monotonic() - begun)
    logger.info("epoch %d: %.0f images/s", progress.epoch, rate)
    report(images_per_second=round(rate, 1))


def _broken(what: str, value: torch.Tensor, step: int, epoch: int, scheduler: torch.optim.lr_scheduler.LambdaLR) -> UserError:
    return UserError(
        f"the {what} is {value.item()} at step {step} of epoch {epoch} (learning rate {scheduler.get_last_lr()[0]:.2g})."
        " Lower the learning rate, or set precision: fp32; the last good state is kept and would be resumed from with unchanged settings."
    )


def _best_epoch(history: list[dict[str, Any]], select_by: str) -> int:
    """The earliest epoch with the highest measure; the last one where there is nothing to measure (None)."""
    measures = [row[f"validation_{select_by}"] for row in history]
    if any(measure is None for measure in measures):
        return len(history)
    return max(range(len(history)), key=lambda row: (measures[row], -row)) + 1 if history else 0


def _save(
    task: Task[Batch],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    progress: Progress,
    state_dir: Path,
) -> None:
    state = {
        "modules": {name: module.state_dict() for name, module in task.modules.items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "history": progress.history,
        "best": progress.best,
        "losses": progress.losses,
        "random": torch.get_rng_state(),  # of dropout
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with (
        artifacts.replacing(state_dir / f"epoch{progress.epoch:05}-step{len(progress.losses):09}.pt") as temporary,
        temporary.open("wb") as stream,
    ):
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch puts an error of its own before that of a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    for old in _states(state_dir)[:-STATES_KEPT]:
        old.unlink()


def _resume(task: Task[Batch], optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR, state_dir: Path) -> Progress:
    for saved in reversed(_states(state_dir)):
        try:
            state = torch.load(saved, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("%s cannot be read (%s); trying the state before it", saved, error)
            continue
        for name, module in task.modules.items():
            module.load_state_dict(state["modules"][name])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["random"])
        for device, random in enumerate(state["random_cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(random, device)
        progress = Progress(state["history"], state["best"], state["losses"])
        logger.info("resuming in epoch %d, after %d steps of it", progress.epoch, len(progress.losses))
        return progress
    return Progress()


def _states(state_dir: Path) -> list[Path]:
    """The saved states, the newest last."""
    return sorted(state_dir.glob("epoch*-step*.pt"))


def _spell(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
