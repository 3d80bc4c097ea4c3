"""The training loop: steps with clipping and a warm-up-and-cosine schedule, validation, guards, the best epoch kept; resumable.

What a step computes and what validation measures are functions given by the stage. In several processes each runs the loop on its part
of every batch, gradients are averaged by DistributedDataParallel, and the first process alone validates and writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import math
import pickle
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from assets import artifacts
from assets.errors import UserError
from assets.params import Training
from assets.progress import report, track
from assets.training import guards
from assets.training.distributed import clip_gradients_, from_first, gather, mean_over_ranks, rank, shard, whole, world_size

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1]
STATES_KEPT = 2  # the last ones: should a disk lose the newest, there is one before it; and the last that was validated
SMALLEST_SCALE = 1.0  # of fp16 gradients: when they overflow even so, it is not for the scaling

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """One training run. `modules` are what is trained: their state is saved for resuming, and left at the best epoch's.

    Measures with a meaning to the guards: `spread` and `cosine_to_start` of the validation embeddings, `text_to_image`. In several
    processes `batches` gives this rank's part and `loss` its own, whose mean over ranks is the loss (see `distributed`).
    """

    modules: dict[str, torch.nn.Module]
    parameter_groups: list[dict[str, Any]]
    # (epoch, counted from 1; done): that epoch's batches without the first `done`. The same epoch always gives the same.
    batches: Callable[[int, int], Iterable[Batch]]
    steps_per_epoch: int  # batches
    loss: Callable[[Batch], torch.Tensor]  # scalar
    validate: Callable[[], dict[str, float | None]]  # measures by name; None where there is nothing to measure
    select_by: str  # the measure whose highest value marks the best epoch
    images_per_step: int  # of a batch, on all ranks together

    patience: int | None  # epochs without a better validation before stopping; None: all epochs
    start: dict[str, float | None] = field(default_factory=dict)  # what `validate` gives before the first step, as far as it is watched
    names: int = 0  # queries of the measure text_to_image
    logit_scale: torch.Tensor | None = None  # its logarithm, where it trains
    sharded: frozenset[str] = frozenset()  # the `modules` of which each rank has a `shard` of the rows; the others are the same on all


@dataclass
class Progress:
    """How far a run has come, beside the weights."""

    history: list[dict[str, Any]] = field(default_factory=list)  # a row a finished epoch
    best: dict[str, Any] = field(default_factory=dict)  # the modules' state after the best of them
    losses: list[torch.Tensor] = field(default_factory=list)  # of the batches done in the epoch under way
    norms: list[torch.Tensor] = field(default_factory=list)  # of the gradient, before clipping, of the epoch's steps
    first: dict[str, float] = field(default_factory=dict)  # the least loss and norm of the run's first steps

    @property
    def epoch(self) -> int:
        return len(self.history) + 1


@dataclass
class Run(Generic[Batch]):
    """A task with what moves it."""

    task: Task[Batch]
    loss: Callable[[Batch], torch.Tensor]  # the task's, with gradients averaged over ranks
    settings: Training
    state_dir: Path
    device: torch.device
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    averages: dict[str, AveragedModel]  # of the modules; empty without settings.ema_decay
    logit_scale_at_start: float | None
    progress: Progress = field(default_factory=Progress)


def fit(task: Task[Batch], settings: Training, state_dir: Path) -> list[dict[str, Any]]:
    """Train; returns a row an epoch (epoch, loss, learning_rate, gradient_norm: the median before clipping, validation measures).

    State is kept in `state_dir` after every epoch and every `settings.checkpoint_minutes`, so that a killed run goes on from there; on
    a CPU its weights end bit-equal to an undisturbed run's. Trouble (a loss or gradient that is not finite, a guard of
    `settings.guards`) stops the run with UserError. With `settings.ema_decay` validated and left are the averaged weights.
    """
    optimizer = torch.optim.AdamW(task.parameter_groups)
    total_steps = settings.epochs * math.ceil(task.steps_per_epoch / settings.accumulate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(
            step, total_steps, warmup_fraction=settings.warmup_fraction, final_lr_fraction=settings.final_lr_fraction
        ),
    )
    device = optimizer.param_groups[0]["params"][0].device if optimizer.param_groups[0]["params"] else torch.device("cpu")
    run = Run(
        task,
        _averaging_gradients(task),
        settings,
        state_dir,
        device,
        optimizer,
        scheduler,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16"),
        averages={
            name: AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
            for name, module in task.modules.items()
            if settings.ema_decay is not None
        },
        logit_scale_at_start=float(task.logit_scale.detach().exp()) if task.logit_scale is not None else None,
    )
    _resume(run)
    progress = run.progress
    history = progress.history
    while progress.epoch <= settings.epochs:
        if task.patience is not None and len(history) - _best_epoch(history, task.select_by) >= task.patience:
            break
        _train_epoch(run)
        with _averaged(run):
            measures, trouble = from_first(lambda: _validated(run))
            if trouble:
                raise _in_trouble(run, trouble, f"after epoch {progress.epoch}", float(scheduler.base_lrs[0]))
            row = {
                "epoch": progress.epoch,
                "loss": float(torch.stack([loss.cpu() for loss in progress.losses]).mean()),
                "learning_rate": float(scheduler.base_lrs[0] * scheduler.lr_lambdas[0](scheduler.last_epoch - 1)),
                "gradient_norm": guards.typical(progress.norms) if progress.norms else None,
                **({"logit_scale": float(task.logit_scale.detach().exp())} if task.logit_scale is not None else {}),
                **{f"validation_{name}": value for name, value in measures.items()},
            }
            history.append(row)
            if _best_epoch(history, task.select_by) == row["epoch"]:
                progress.best = {
                    name: {key: value.detach().clone() for key, value in _state_of(module).items()} for name, module in task.modules.items()
                }
        progress.losses, progress.norms = [], []
        logger.info("epoch %d of %d: %s", row["epoch"], settings.epochs, _spell(row))
        _save(run)
    for name, module in task.modules.items():
        _load(module, progress.best[name])
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
        run.optimizer.zero_grad(set_to_none=True)
        before = len(progress.losses)
        for batch in itertools.islice(batches, together):
            loss = run.loss(batch)
            progress.losses.append(mean_over_ranks(loss.detach()))
            if not torch.isfinite(progress.losses[-1]):
                raise _in_trouble(run, f"the loss is {progress.losses[-1].item()}", _place(run), _rate(run))
            run.scaler.scale(loss / together).backward()
        assert len(progress.losses) == before + together, "fewer batches than steps_per_epoch"
        _step(run)
        now = time.monotonic()
        if from_first(lambda: now - saved >= 60 * settings.checkpoint_minutes):  # noqa: B023
            _save(run)
            saved = time.monotonic()
    for _ in batches:  # its end: the bar closes, the pace is told
        raise AssertionError("more batches than steps_per_epoch")
    for module in task.modules.values():
        module.eval()
    rate = (len(progress.losses) - done) * task.images_per_step / (time.monotonic() - begun)
    logger.info("epoch %d: %.0f images/s", progress.epoch, rate)
    report(images_per_second=round(rate, 2))


def _step(run: Run[Batch]) -> None:
    """One step of the optimiser on the gradients that the batches have left; not taken where fp16 gradients overflow their scale."""
    progress, limits = run.progress, run.settings.guards
    run.scaler.unscale_(run.optimizer)  # gradients are clipped as they are, not as they were scaled
    sharded = _sharded(run)
    replicated = [parameter for parameter in _parameters(run) if all(parameter is not other for other in sharded)]
    norm = clip_gradients_(replicated, sharded, run.settings.gradient_clip_norm)
    finite = bool(torch.isfinite(norm))
    if not finite and run.scaler.get_scale() <= SMALLEST_SCALE:  # such a step would make every weight nan
        raise _in_trouble(run, f"the gradient's norm is {norm.item()}", _place(run), _rate(run))
    rate = _rate(run)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if not finite:
        return
    run.scheduler.step()
    for name, average in run.averages.items():
        average.update_parameters(run.task.modules[name])
    progress.norms.append(norm.detach())
    for name, values in (("loss", progress.losses), ("norm", progress.norms)):
        if name not in progress.first and len(values) >= guards.FIRST:
            progress.first[name] = float(torch.stack(values[: guards.FIRST]).min())
    first = progress.first.get
    loss_floor = first("loss", 0.0) + guards.ROOM
    clip = run.settings.gradient_clip_norm  # below it every gradient is taken as it is
    trouble = guards.trouble_in_steps("loss", progress.losses, first("loss"), limits.max_loss_growth, loss_floor)
    trouble = trouble or guards.trouble_in_steps("gradient's norm", progress.norms, first("norm"), limits.max_gradient_growth, clip)
    if run.task.logit_scale is not None and run.logit_scale_at_start is not None:
        scale = float(run.task.logit_scale.detach().exp())
        trouble = trouble or guards.trouble_in_logit_scale(scale, run.logit_scale_at_start, limits.max_logit_scale_change)
    if trouble:
        raise _in_trouble(run, trouble, _place(run), rate)


def _parameters(run: Run[Batch]) -> list[torch.nn.Parameter]:
    """In the optimiser's order."""
    return [parameter for group in run.optimizer.param_groups for parameter in group["params"]]


def _sharded(run: Run[Batch]) -> list[torch.nn.Parameter]:
    return [parameter for name in run.task.sharded for parameter in run.task.modules[name].parameters()]


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
    return float(run.scheduler.get_last_lr()[0])


def _in_trouble(run: Run[Batch], trouble: str, where: str, rate: float) -> UserError:
    """Forgets the states after the last that was validated: what has been saved since then is not known to be good."""
    for state in _states(run.state_dir) if rank() == 0 else []:
        if state.name > _state_name(run.progress.epoch, 0):
            state.unlink()
    half = " or set precision: fp32," if run.settings.precision != "fp32" else ""
    kept = (
        f" The last good state, of the end of epoch {run.progress.epoch - 1}, is kept in {run.state_dir}." if _states(run.state_dir) else ""
    )
    return UserError(
        f"{trouble} {where}. The likely cause is a too high learning rate (it is {rate:.2g}): lower it, first to a tenth,{half}"
        f" or raise warmup_fraction.{kept}"
    )


def _state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's state without its locked parameters, which no training changes."""
    locked = _locked(module)
    return {name: tensor for name, tensor in module.state_dict().items() if name not in locked}


def _load(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """The inverse of `_state_of`."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= _locked(module), (missing, unexpected)


def _locked(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters(remove_duplicate=False) if not parameter.requires_grad}


def _best_epoch(history: list[dict[str, Any]], select_by: str) -> int:
    """The earliest epoch with the highest measure; the last one where there is nothing to measure (None)."""
    measures = [row[f"validation_{select_by}"] for row in history]
    if any(measure is None for measure in measures):
        return len(history)
    return max(range(len(history)), key=lambda row: (measures[row], -row)) + 1 if history else 0


def _save(run: Run[Batch]) -> None:
    """The state of all ranks as one process would have it, written by the first."""
    progress = run.progress
    state = {
        **_joined(run, _state(run), whole),
        "scheduler": run.scheduler.state_dict(),
        "scaler": run.scaler.state_dict(),
        **{name: getattr(progress, name) for name in ("history", "losses", "norms", "first")},
        # of dropout, a row a rank
        "random": gather(torch.get_rng_state()[None]),
        "random_cuda": gather(torch.cuda.get_rng_state(run.device)[None]) if run.device.type == "cuda" else None,
    }
    if rank() > 0:
        return
    with (
        artifacts.replacing(run.state_dir / _state_name(progress.epoch, len(progress.losses))) as temporary,
        temporary.open("wb") as stream,
    ):
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch puts an error of its own before that of a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    states = _states(run.state_dir)
    validated = [saved for saved in states if saved.name == _state_name(progress.epoch, 0)]
    for old in set(states[:-STATES_KEPT]) - set(validated):
        old.unlink()


def _resume(run: Run[Batch]) -> None:
    if (saved := from_first(lambda: _newest_readable(run.state_dir))) is None:
        return
    state = torch.load(saved, weights_only=True, map_location="cpu")
    own = _joined(run, {name: state[name] for name in ("modules", "averages", "best", "optimizer")}, _own_shard)
    for name, module in run.task.modules.items():
        _load(module, own["modules"][name])
    for name, average in run.averages.items():
        average.load_state_dict(own["averages"][name])
    run.optimizer.load_state_dict(own["optimizer"])
    run.scheduler.load_state_dict(state["scheduler"])
    run.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"][rank()].clone())  # torch crashes on a view
    if run.device.type == "cuda" and state["random_cuda"] is not None:
        torch.cuda.set_rng_state(state["random_cuda"][rank()].clone(), run.device)
    run.progress = Progress(best=own["best"], **{name: state[name] for name in ("history", "losses", "norms", "first")})
    logger.info("resuming in epoch %d, after %d batches of it", run.progress.epoch, len(run.progress.losses))


def _newest_readable(state_dir: Path) -> Path | None:
    for saved in reversed(_states(state_dir)):
        try:
            torch.load(saved, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("%s cannot be read (%s); trying the state before it", saved, error)
        else:
            return saved
    return None


def _state(run: Run[Batch]) -> dict[str, Any]:
    """What this rank holds of the weights, and what belongs to each."""
    return {
        "modules": {name: _state_of(module) for name, module in run.task.modules.items()},
        "averages": {name: average.state_dict() for name, average in run.averages.items()},
        "best": run.progress.best,
        "optimizer": run.optimizer.state_dict(),
    }


def _joined(run: Run[Batch], state: dict[str, Any], join: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """`state` with `join` applied to every array of a sharded module, and to what the optimiser keeps for it."""

    def rows(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: join(value) if value.ndim else value for name, value in tensors.items()}

    def of_modules(states: dict[str, Any]) -> dict[str, Any]:
        return {name: rows(tensors) if name in run.task.sharded else tensors for name, tensors in states.items()}

    places = {id(parameter): place for place, parameter in enumerate(_parameters(run))}
    sharded = {places[id(parameter)] for parameter in _sharded(run)}
    moments = {place: rows(values) if place in sharded else values for place, values in state["optimizer"]["state"].items()}
    return {
        **{name: of_modules(state[name]) for name in ("modules", "averages", "best")},
        "optimizer": state["optimizer"] | {"state": moments},
    }


def _own_shard(rows: torch.Tensor) -> torch.Tensor:
    own = shard(len(rows))
    return rows[own.start : own.stop]


def _state_name(epoch: int, batches: int) -> str:
    return f"epoch{epoch:05}-step{batches:09}.pt"


def _states(state_dir: Path) -> list[Path]:
    """The saved states, the newest last."""
    return sorted(state_dir.glob("epoch*-step*.pt"))


def _spell(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float))
