"""What a training run consists of: its task, which a stage gives, what moves the weights, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.optim.swa_utils import AveragedModel

from assets.params import Optimization, Training

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """One training run. `modules` are what it trains: their state is saved for resuming, and at the end they hold what is kept.

    Measures with a meaning to the guards: `spread` and `cosine_to_start` of the validation embeddings, `image_to_image`, `text_to_image`.
    In several processes `batches` gives this rank's part and `loss` its own, whose mean over ranks is the loss (see `distributed`).
    """

    modules: dict[str, torch.nn.Module]
    parameter_groups: list[dict[str, Any]]
    # of (epoch, counted from 1; done): that epoch's batches without the first `done`. The same epoch always gives the same batches.
    batches: Callable[[int, int], Iterable[Batch]]
    steps_per_epoch: int  # batches
    loss: Callable[[Batch], torch.Tensor]  # scalar
    validate: Callable[[], dict[str, float | None]]  # measures by name; None where there is nothing to measure
    select_by: str  # the measure whose highest value marks the best epoch
    images_per_step: int  # of a batch, on all ranks together

    start_is_candidate: bool = True  # for what is kept; False where the way back, which begins there, decides
    cannot_choose: str | None = None  # why validation is too small to choose by: the last epoch is kept; None: it chooses
    noise: Mapping[str, float] = field(default_factory=dict)  # the standard error of a measure, for the guards
    lock_batch_norm: bool = False  # batch norms use the statistics that they start with
    sparse_groups: list[dict[str, Any]] = field(default_factory=list)  # of parameters whose gradients are sparse
    logit_scale: torch.Tensor | None = None  # its logarithm, where it trains
    sharded: frozenset[str] = frozenset()  # the `modules` of which each rank has a `shard` of the rows; the others are the same on all


@dataclass
class Progress:
    """How far a run has come, beside the weights. A round is the epochs between two validations."""

    history: list[dict[str, Any]] = field(default_factory=list)  # the start, then one row per finished round
    best: dict[str, Any] = field(default_factory=dict)  # the modules' state at the best of them
    losses: list[torch.Tensor] = field(default_factory=list)  # of the batches done in the round under way
    norms: list[torch.Tensor] = field(default_factory=list)  # of the gradient, before clipping, of the round's steps
    first: dict[str, float] = field(default_factory=dict)  # the least loss and norm of the run's first steps

    @property
    def round(self) -> int:
        """The one under way, counted from 1; 0 before the start is measured."""
        return len(self.history)

    @property
    def validated_epoch(self) -> int:
        """The last that was validated; 0: the start."""
        return self.history[-1]["epoch"] if self.history else 0


@dataclass
class Run(Generic[Batch]):
    """A task with what moves it."""

    task: Task[Batch]
    loss: Callable[[Batch], torch.Tensor]  # the task's, with gradients averaged over ranks
    settings: Optimization
    training: Training
    state_dir: Path
    device: torch.device
    optimizers: list[torch.optim.Optimizer]
    schedulers: list[torch.optim.lr_scheduler.LambdaLR]  # of each
    scaler: torch.amp.GradScaler
    averages: dict[str, AveragedModel]  # of the modules; empty without settings.ema_decay
    logit_scale_at_start: float | None
    epochs: int
    epochs_per_round: int
    progress: Progress = field(default_factory=Progress)

    @property
    def place(self) -> tuple[int, int]:
        """(the epoch under way, counted from 1; how many of its batches are done)."""
        epochs, batches = divmod(len(self.progress.losses), self.task.steps_per_epoch)
        return self.progress.validated_epoch + epochs + 1, batches

    @property
    def round_ends(self) -> int:
        """The last epoch of the round under way."""
        return min(self.epochs, self.progress.validated_epoch + self.epochs_per_round)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """In the optimisers' order."""
        return [parameter for optimizer in self.optimizers for parameter in parameters_of(optimizer)]

    @property
    def sharded_parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for name in self.task.sharded for parameter in self.task.modules[name].parameters()]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
