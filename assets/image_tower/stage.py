"""Stage image_tower@RECIPE: tune the image tower of the model that the recipe starts from; writes models/<recipe> and its history.

The text tower is locked. The loss is ArcMargin on class labels (GPR-FT), and with a caption_weight Multi-Caption-ArcMargin too (MCIP).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn.functional import embedding, normalize

from assets import artifacts
from assets.clip.device import autocast, resolve_device
from assets.clip.encoder import Encoder
from assets.clip.trainable import fold, learning_rate_shares, trained_parameters, unlock
from assets.image_tower.captions import CaptionSets
from assets.image_tower.losses import multi_caption_arc_margin_loss, sample_classes, sharded_arc_margin_loss
from assets.params import ImageTower, Training
from assets.pictures.split import Split
from assets.pictures.table import read_rows
from assets.recipes import Recipe
from assets.training import guards, validation
from assets.training.batch_norm import share_batch_statistics
from assets.training.data import batches_per_epoch
from assets.training.distributed import first_before_others, gather, rank, shard
from assets.training.loop import fit
from assets.training.optimizer import layer_decay_groups
from assets.training.processes import own_device, run_in_processes
from assets.training.randomness import generator_for
from assets.training.result import write_result
from assets.training.run import Task
from assets.training.state import state_dir_for
from assets.training.towers import checkpoint_image_tower, compiled, drop_patches
from assets.training.views import Views, training_views

SELECT_BY = "image_to_image"

Loss = Callable[[torch.Tensor, np.ndarray], torch.Tensor]  # of unit-norm embeddings [B, d] of the training images of rows [B]


def train_image_tower(recipe: Recipe, training: Training) -> None:
    run_in_processes(training.processes, resolve_device(recipe.settings.device), _train, recipe, training)


def _train(recipe: Recipe, training: Training) -> None:
    assert recipe.start is not None
    settings: ImageTower = recipe.settings
    curated, start = artifacts.CURATED_IMAGES, artifacts.model_dir(recipe.start)
    captions = artifacts.training_captions_dir(recipe.name) if settings.caption_weight > 0 else None
    determined_by: dict[str, Any] = {
        "params": settings.model_dump(),
        "inputs": {
            "curated_images": artifacts.sha256_of(curated),
            recipe.start: artifacts.sha256_of(start),
            **({"training_captions": artifacts.sha256_of(captions)} if captions else {}),
        },
    }
    state_dir = state_dir_for("image_tower", recipe.name, determined_by)
    device = own_device(resolve_device(settings.device))
    torch.manual_seed(settings.seed + rank())  # of dropout
    encoder = Encoder(start, device=device, precision=settings.precision)
    model = encoder.model
    model.requires_grad_(False)
    classes, labels = np.unique(np.array(read_rows(curated, "train")["label"].to_pylist()), return_inverse=True)
    own_classes = shard(len(classes))
    with first_before_others():
        images = encoder.images(Split(curated, "train"))
        held_out_images = encoder.images(Split(curated, "validation"))
    means = _class_means(images, labels, len(classes))
    centers = torch.nn.Parameter(means[own_classes.start : own_classes.stop].to(device))
    loss = _class_loss(centers, own_classes, labels, settings)
    if captions:
        loss = _weighted(loss, _caption_loss(captions, encoder, settings), settings.caption_weight)
    held_out = validation.read_validation_set(curated)
    validate, measured_before = _validation(encoder.in_batches_of(settings.batch_size), held_out, held_out_images)
    unlock(model, "image", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    share_batch_statistics(model.visual)
    drop_patches(model, settings.patch_dropout)
    if settings.gradient_checkpointing:
        checkpoint_image_tower(model)
    encode = compiled(model.encode_image, device) if training.compile else model.encode_image

    def step_loss(batch: Views) -> torch.Tensor:
        rows, views = batch
        with autocast(device, settings.precision):
            embedded = encode(views)
        return loss(normalize(embedded.float(), dim=1), rows)

    of_centers = {"params": [centers], "lr": settings.class_centers_lr, "weight_decay": 0.0}
    task = Task(
        modules={"visual": model.visual, "class_centers": torch.nn.ParameterList([centers])},
        parameter_groups=[
            *layer_decay_groups(
                trained_parameters(model, "image"),
                learning_rate_shares(model, "image", settings.layer_decay),
                settings.lr,
                settings.weight_decay,
            ),
            *([of_centers] if settings.sampled_classes is None else []),
        ],
        sparse_groups=[of_centers] if settings.sampled_classes is not None else [],
        batches=training_views(
            curated,
            model,
            batch_size=settings.batch_size,
            augmentation=settings.augmentation.model_dump(),
            seed=settings.seed,
            device=device,
            classes=labels,
            images_per_class=settings.images_per_class,
        ),
        steps_per_epoch=batches_per_epoch(len(labels), settings.batch_size),
        loss=step_loss,
        validate=validate,
        select_by=SELECT_BY,
        images_per_step=min(settings.batch_size, len(labels)),
        patience=None,
        start=measured_before,
        names=len(held_out.names),
        sharded=frozenset({"class_centers"}),
    )
    history = fit(task, settings, training, state_dir)
    fold(model, settings.trains)
    write_result(model, recipe, like=start, determined_by=determined_by, history=history, select_by=SELECT_BY, state_dir=state_dir)


def _class_loss(centers: torch.nn.Parameter, own_classes: range, labels: np.ndarray, settings: ImageTower) -> Loss:
    """`centers`: of this rank's classes. With `settings.sampled_classes`, each step takes this rank's share of that many classes."""
    most = len(own_classes)
    if settings.sampled_classes is not None:
        most = math.ceil(settings.sampled_classes * len(own_classes) / (labels.max() + 1))

    def loss(embedded: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        columns = gather(torch.from_numpy(labels[rows]).to(embedded.device)) - own_classes.start
        if settings.sampled_classes is None:
            return sharded_arc_margin_loss(embedded, centers, columns, settings.scale, settings.margin)
        # the batch itself is the seed: a step done again, after a kill, samples the same
        chosen, places = sample_classes(columns, len(own_classes), most, generator_for(settings.seed, *rows.tolist()))
        return sharded_arc_margin_loss(embedded, embedding(chosen, centers, sparse=True), places, settings.scale, settings.margin)

    return loss


def _caption_loss(folder: Path, encoder: Encoder, settings: ImageTower) -> Loss:
    """The text tower is locked, so the captions of the tables in `folder` are encoded once."""
    table, assigned = pq.read_table(folder / "captions.parquet"), pq.read_table(folder / "image_captions.parquet")
    captions = CaptionSets.from_lists(assigned["caption_ids"].to_pylist(), np.array(table["cluster"]))
    with first_before_others():
        encoded = encoder.texts(table["caption"].to_pylist())

    def loss(embedded: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        everyone = gather(torch.from_numpy(rows)).numpy()
        candidates, *which = captions.of_batch(rows, everyone)
        texts, positives, ignored = (torch.from_numpy(each).to(embedded.device) for each in (encoded[candidates], *which))
        return multi_caption_arc_margin_loss(embedded, texts, positives, settings.scale, settings.margin, ignored)

    return loss


def _weighted(class_loss: Loss, caption_loss: Loss, caption_weight: float) -> Loss:
    """MCIP: (1 − weight)·ArcMargin + weight·MCArcMargin."""
    return lambda embedded, rows: (1 - caption_weight) * class_loss(embedded, rows) + caption_weight * caption_loss(embedded, rows)


def _validation(
    encoder: Encoder, held_out: validation.ValidationSet, start: np.ndarray
) -> tuple[Callable[[], dict[str, float | None]], dict[str, float | None]]:
    """(a function that measures the encoder's model as it is then, the measures of its embeddings from before training, `start` [N, d])."""
    names = encoder.texts_now(held_out.names)

    def measures(images: np.ndarray) -> dict[str, float | None]:
        return {
            "image_to_image": validation.image_to_image(images, held_out.labels),
            "text_to_image": validation.text_to_image(names, images, held_out.relevant),
            **guards.health(images, start),
        }

    return lambda: measures(encoder.images_now(held_out.pictures)), measures(start)


def _class_means(embedded: np.ndarray, labels: np.ndarray, classes: int) -> torch.Tensor:
    """Where the class centers start: float32 [C, d], the mean of the starting model's embeddings [N, d] of each class."""
    sums = torch.zeros(classes, embedded.shape[1]).index_add_(0, torch.from_numpy(labels), torch.from_numpy(embedded))
    return normalize(sums, dim=1)
