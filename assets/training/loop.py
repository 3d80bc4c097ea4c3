"""The training loop: epochs of steps with clipping and a warm-up-and-cosine schedule, validation, the best epoch kept, resuming.

What a step computes and what validation measures are functions given by the stage.
"""

from __future__ import annotations

import copy
import ctypes
import hashlib
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from assets import artifacts
from assets.errors import UserError
from assets.progress import track

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1]

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """One training run. `modules` are what is trained: their state is saved for resuming, and left at the best epoch's."""

    modules: dict[str, torch.nn.Module]
    parameter_groups: list[dict[str, Any]]
    batches: Callable[[int], Iterable[Batch]]  # of an epoch, counted from 1; the same epoch always gives the same batches
    steps_per_epoch: int
    loss: Callable[[Batch], torch.Tensor]  # scalar
    validate: Callable[[], dict[str, float | None]]  # measures by name; None where there is nothing to measure
    select_by: str  # the measure whose highest value marks the best epoch
    images_per_step: int


@dataclass(frozen=True)
class Schedule:
    epochs: int
    warmup_fraction: float  # of all steps
    final_lr_fraction: float  # of the peak learning rate
    gradient_clip_norm: float
    patience: int | None  # epochs without a better validation before stopping; None: all epochs


def fit(task: Task[Batch], schedule: Schedule, state_dir: Path) -> list[dict[str, Any]]:
    """Train; returns a row an epoch (epoch, loss, learning_rate, validation measures).

    State is kept in `state_dir` after every epoch, so that a killed run goes on from there with the same result; it is removed at the
    end. A loss that is not finite stops the run with UserError.
    """
    keep_freed_memory()
    optimizer = torch.optim.AdamW(task.parameter_groups)
    total_steps = schedule.epochs * task.steps_per_epoch
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, total_steps, schedule))
    history, best = _resume(task, optimizer, scheduler, state_dir)
    for epoch in range(len(history) + 1, schedule.epochs + 1):
        if schedule.patience is not None and len(history) - _best_epoch(history, task.select_by) >= schedule.patience:
            break
        row = _train_epoch(task, schedule, optimizer, scheduler, epoch)
        row |= {f"validation_{name}": value for name, value in task.validate().items()}
        history.append(row)
        logger.info("epoch %d of %d: %s", epoch, schedule.epochs, _spell(row))
        if _best_epoch(history, task.select_by) == epoch:
            best = {name: copy.deepcopy(module.state_dict()) for name, module in task.modules.items()}
        _save(task, optimizer, scheduler, history, best, state_dir)
    for name, module in task.modules.items():
        module.load_state_dict(best[name])
    measured = best_row(history, task.select_by)[f"validation_{task.select_by}"] is not None
    why = f"the best by validation {task.select_by}" if measured else "the last: there are no validation images to choose by"
    logger.info("kept epoch %d, %s", _best_epoch(history, task.select_by), why)
    return history


def best_row(history: list[dict[str, Any]], select_by: str) -> dict[str, Any]:
    """The row of the epoch that `fit` kept."""
    return history[_best_epoch(history, select_by) - 1]


def forget_state(state_dir: Path) -> None:
    """Remove a finished run's state: call it once the result is safely written."""
    shutil.rmtree(state_dir, ignore_errors=True)


def learning_rate_factor(step: int, total_steps: int, schedule: Schedule) -> float:
    """Linear warm-up from near 0 to 1, then a cosine to `final_lr_fraction` at the last step."""
    warmup = round(schedule.warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
    return schedule.final_lr_fraction + (1 - schedule.final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2


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


def keep_freed_memory() -> None:
    """Ask glibc to keep freed pages: giving them back and faulting them in again costs a CPU training step a fifth of its time."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(-4, 0)  # M_MMAP_MAX: no allocation by mmap
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: keep the heap's top


def _train_epoch(
    task: Task[Batch],
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LambdaLR,
    epoch: int,
) -> dict[str, Any]:
    for module in task.modules.values():
        train_mode(module)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    losses: list[torch.Tensor] = []
    learning_rates: list[float] = []
    begun = time.monotonic()
    for batch in track(task.batches(epoch), task.steps_per_epoch, f"epoch {epoch} of {schedule.epochs}", "steps"):
        loss = task.loss(batch)
        if not torch.isfinite(loss):
            raise _broken("loss", loss, len(losses) + 1, epoch, scheduler)
        learning_rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, schedule.gradient_clip_norm)
        if not torch.isfinite(norm):  # such a step would make every weight nan
            raise _broken("gradient's norm", norm, len(losses) + 1, epoch, scheduler)
        optimizer.step()
        scheduler.step()
        losses.append(loss.detach())
    for module in task.modules.values():
        module.eval()
    seconds = time.monotonic() - begun
    logger.info("epoch %d: %.0f images/s", epoch, len(losses) * task.images_per_step / seconds)
    return {"epoch": epoch, "loss": float(torch.stack(losses).mean()), "learning_rate": learning_rates[-1]}


def _broken(what: str, value: torch.Tensor, step: int, epoch: int, scheduler: torch.optim.lr_scheduler.LambdaLR) -> UserError:
    return UserError(
        f"the {what} is {value.item()} at step {step} of epoch {epoch} (learning rate {scheduler.get_last_lr()[0]:.2g})."
        " Lower the learning rate, or set precision: fp32; training state of the last whole epoch is kept."
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
    history: list[dict[str, Any]],
    best: dict[str, Any],
    state_dir: Path,
) -> None:
    with artifacts.replacing(state_dir / "state.pt") as temporary:
        state = {
            "modules": {name: module.state_dict() for name, module in task.modules.items()},
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "history": history,
            "best": best,
            "random": torch.get_rng_state(),  # of dropout
        }
        with temporary.open("wb") as stream:
            try:
                torch.save(state, stream)
            except RuntimeError as error:  # torch puts an error of its own before that of a full disk
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def _resume(
    task: Task[Batch], optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR, state_dir: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    saved = state_dir / "state.pt"
    if not saved.exists():
        return [], {}
    state = torch.load(saved, weights_only=True, map_location="cpu")
    for name, module in task.modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["random"])
    logger.info("resuming after epoch %d", len(state["history"]))
    return state["history"], state["best"]


def _spell(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
