"""The state that a run resumes from: all that is needed to go on bit for bit, in one file, whatever the number of processes."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from assets import artifacts
from assets.imports import imported_files
from assets.training.distributed import from_first, gather, rank, shard, whole
from assets.training.run import Progress, Run, parameters_of

logger = logging.getLogger(__name__)

STATES_KEPT = 2  # the last ones: should a disk lose the newest, there is one before it; and the last that was validated


def state_dir_for(stage: str, recipe: str, determined_by: dict[str, Any]) -> Path:
    """Where the run of `stage` that makes `recipe` keeps its state.

    Named by a hash of all that determines the run: `determined_by`, and the code that the stage imports. So a changed setting or loss never
    resumes a foreign state. Guards stop a run and change nothing in it: with other guards, a run that one of them stopped goes on.
    """
    params = {name: value for name, value in determined_by["params"].items() if name != "guards"}
    code = [artifacts.sha256_of(path) for path in imported_files(f"assets.{stage}.stage")]
    key = hashlib.sha256(json.dumps([determined_by | {"params": params}, code], sort_keys=True).encode()).hexdigest()[:16]
    return artifacts.WORK / "training" / f"{stage}-{recipe}-{key}"


def save(run: Run[Any]) -> None:
    """The state of all ranks as one process would have it, written by the first."""
    progress = run.progress
    state = {
        **_joined(run, _state(run), whole),
        "schedulers": [scheduler.state_dict() for scheduler in run.schedulers],
        "scaler": run.scaler.state_dict(),
        **{name: getattr(progress, name) for name in ("history", "losses", "norms", "first")},
        # of dropout, one row per rank
        "random": gather(torch.get_rng_state()[None]),
        "random_cuda": gather(torch.cuda.get_rng_state(run.device)[None]) if run.device.type == "cuda" else None,
    }
    if rank() > 0:
        return
    with (
        artifacts.replacing(run.state_dir / _state_name(progress.round, len(progress.losses))) as temporary,
        temporary.open("wb") as stream,
    ):
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch puts an error of its own before that of a full disk
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
    states = _states(run.state_dir)
    validated = [saved for saved in states if saved.name == _state_name(progress.round, 0)]
    for old in set(states[:-STATES_KEPT]) - set(validated):
        old.unlink()


def resume(run: Run[Any]) -> None:
    """Put the run where its newest readable state was saved; leave it at its start if there is none."""
    found = _newest_readable(run.state_dir) if rank() == 0 else None
    saved = from_first(lambda: found[0] if found else None)
    if saved is None:
        return
    state = found[1] if found else _load(saved)
    own = _joined(run, {name: state[name] for name in ("modules", "averages", "best", "optimizers")}, _own_shard)
    for name, module in run.task.modules.items():
        load_trained(module, own["modules"][name])
    for name, average in run.averages.items():
        average.load_state_dict(own["averages"][name])
    for optimizer, saved_optimizer in zip(run.optimizers, own["optimizers"], strict=True):
        optimizer.load_state_dict(saved_optimizer)
    for scheduler, saved_scheduler in zip(run.schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved_scheduler)
    run.scaler.load_state_dict(state["scaler"])
    if rank() < len(state["random"]):  # else there are more processes than before, and this one keeps what the stage seeded
        torch.set_rng_state(state["random"][rank()].clone())  # torch crashes on a view
        if run.device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"][rank()].clone(), run.device)
    run.progress = Progress(best=own["best"], **{name: state[name] for name in ("history", "losses", "norms", "first")})
    logger.info("resuming in epoch %d, after %d batches of it", *run.place)


def _newest_readable(state_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest state that can be read, and what it holds."""
    for saved in reversed(_states(state_dir)):
        try:
            return saved, _load(saved)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("%s cannot be read (%s); trying the state before it", saved, error)
    return None


def _load(saved: Path) -> dict[str, Any]:
    return torch.load(saved, weights_only=True, map_location="cpu")


def _state(run: Run[Any]) -> dict[str, Any]:
    """What this rank holds of the weights, and what belongs to each."""
    return {
        "modules": {name: trained_state(module) for name, module in run.task.modules.items()},
        "averages": {name: average.state_dict() for name, average in run.averages.items()},
        "best": run.progress.best,
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
    }


def _joined(run: Run[Any], state: dict[str, Any], join: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """`state` with `join` applied to every array of a sharded module, and to what the optimiser keeps for it."""

    def rows(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: join(value) if isinstance(value, torch.Tensor) and value.ndim else value for name, value in tensors.items()}

    def of_modules(states: dict[str, Any]) -> dict[str, Any]:
        return {name: rows(tensors) if name in run.task.sharded else tensors for name, tensors in states.items()}

    def of_optimizer(optimizer: torch.optim.Optimizer, own: dict[str, Any]) -> dict[str, Any]:
        parameters = parameters_of(optimizer)
        moments = {place: rows(values) if id(parameters[place]) in sharded else values for place, values in own["state"].items()}
        return own | {"state": moments}

    sharded = {id(parameter) for parameter in run.sharded_parameters}
    return {
        **{name: of_modules(state[name]) for name in ("modules", "averages", "best")},
        "optimizers": [of_optimizer(*each) for each in zip(run.optimizers, state["optimizers"], strict=True)],
    }


def _own_shard(rows: torch.Tensor) -> torch.Tensor:
    own = shard(len(rows))
    return rows[own.start : own.stop]


def _state_name(number: int, batches: int) -> str:
    return f"round{number:05}-step{batches:09}.pt"


def _states(state_dir: Path) -> list[Path]:
    """The saved states, the newest last."""
    return sorted(state_dir.glob("round*-step*.pt"))


def forget_unvalidated(run: Run[Any]) -> bool:
    """Remove the states after the last that was validated, for they are not known to be good; whether one is left."""
    for state in _states(run.state_dir) if rank() == 0 else []:
        if state.name > _state_name(run.progress.round, 0):
            state.unlink()
    return bool(_states(run.state_dir))


def forget_state(state_dir: Path) -> None:
    """Remove the state of a run that is finished, once its result is safely written, or of one that cannot go on."""
    shutil.rmtree(state_dir, ignore_errors=True)


def trained_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's state without its locked parameters, which no training changes."""
    locked = _locked(module)
    return {name: tensor for name, tensor in module.state_dict().items() if name not in locked}


def load_trained(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """The inverse of `trained_state`."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= _locked(module), (missing, unexpected)


def _locked(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
