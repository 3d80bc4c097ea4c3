"""What the two stages that tune a tower share: how a training is set up, and how it ends. What trains, by which loss, is theirs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from assets import artifacts
from assets.clip.device import resolve_device
from assets.clip.encoder import Encoder
from assets.clip.model import Clip
from assets.clip.trainable import fold
from assets.engine import Engine
from assets.params import Training
from assets.pictures.split import Split
from assets.recipes import Recipe
from assets.training import selection
from assets.training.distributed import rank
from assets.training.loop import fit
from assets.training.processes import own_device
from assets.training.result import write_result
from assets.training.run import Task
from assets.training.state import state_dir_for
from assets.training.validation import ValidationSet, read_validation_set
from assets.training.way_back import go_back, go_to

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuning:
    """A training of one tower of the model that its recipe starts from."""

    recipe: Recipe
    training: Training
    start: Path  # the model directory
    encoder: Encoder  # whose model trains; all its parameters are locked at first
    held_out: ValidationSet
    determined_by: dict[str, Any]

    @property
    def settings(self) -> Any:
        return self.recipe.settings

    @property
    def model(self) -> Clip:
        return self.encoder.model


def set_up(recipe: Recipe, training: Training, inputs: dict[str, Path]) -> Tuning:
    """`inputs`: what this stage reads besides the curated table and the model that it starts from, by name."""
    assert recipe.start is not None
    settings, start = recipe.settings, artifacts.model_dir(recipe.start)
    read = {"curated_images": artifacts.CURATED_IMAGES, recipe.start: start, **inputs}
    determined_by = {"params": settings.model_dump(), "inputs": {name: artifacts.sha256_of(path) for name, path in read.items()}}
    device = own_device(resolve_device(settings.device))
    torch.manual_seed(settings.seed + rank())  # of dropout
    encoder = Encoder(start, device=device, precision=settings.precision)
    encoder.model.requires_grad_(False)
    held_out = read_validation_set(artifacts.CURATED_IMAGES)
    logger.info("%s", held_out)
    return Tuning(recipe, training, start, encoder, held_out, determined_by)


def embed_on(engine: Engine, recipe: Recipe) -> None:
    """Let the workers of a remote engine embed what the training's first process would embed while the others wait: it finds that kept."""
    assert recipe.start is not None
    settings = recipe.settings
    encoder = Encoder(artifacts.model_dir(recipe.start), device=settings.device, precision=settings.precision, engine=engine)
    for split in ("train", "validation"):
        encoder.images(Split(artifacts.CURATED_IMAGES, split))


def train(tuning: Tuning, task: Task[Any]) -> None:
    """Run the task, and write the result: what `settings.keep` asks for of its epochs and of the way from there back to the start."""
    recipe, settings = tuning.recipe, tuning.settings
    asked = None if settings.keep == "best" else settings.keep
    if asked is not None:
        task = replace(task, cannot_choose=f"keep is {asked:g}")
    state_dir = state_dir_for(recipe.stage, recipe.name, tuning.determined_by)
    rows = fit(replace(task, start_is_candidate=False), settings, tuning.training, state_dir)
    fold(tuning.model, settings.trains)
    kept = selection.kept(
        rows, task.select_by, start_is_candidate=False, cannot_choose=task.cannot_choose, validated_on=str(tuning.held_out)
    )
    if asked is None:
        kept = go_back(tuning.model, tuning.start, kept, rows[0], settings.way_back, task.validate, task.select_by)
    else:
        kept = go_to(tuning.model, tuning.start, kept, asked, task.validate)
    logger.info("kept %s", kept)
    write_result(tuning.model, recipe, like=tuning.start, determined_by=tuning.determined_by, history=rows, kept=kept, state_dir=state_dir)
