"""Stage image_tower@RECIPE: tune the image tower of the model that the recipe starts from; writes models/<recipe> and its history.

The text tower is locked. The loss is ArcMargin on class labels (GPR-FT), and with a caption_weight Multi-Caption-ArcMargin too (MCIP).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn.functional import embedding, normalize

from assets import artifacts
from assets.clip.device import autocast, device_of
from assets.clip.encoder import Encoder
from assets.clip.trainable import learning_rate_shares, trained_parameters, unlock
from assets.engine import HERE, Engine
from assets.image_tower.captions import CaptionSets
from assets.image_tower.losses import multi_caption_arc_margin_loss, sample_classes, sharded_arc_margin_loss
from assets.params import ImageTower, Training
from assets.pictures.split import Split
from assets.pictures.table import read_rows
from assets.recipes import Recipe
from assets.training import guards, validation
from assets.training.batch_norm import share_batch_statistics
from assets.training.depthwise import quicken_depthwise
from assets.training.distributed import first_before_others, gather, shard
from assets.training.length import batches_per_epoch, fitting_batch
from assets.training.optimizer import layer_decay_groups
from assets.training.processes import run_in_processes
from assets.training.randomness import generator_for
from assets.training.run import Task
from assets.training.towers import checkpoint_image_tower, compiled, drop_patches
from assets.training.tuning import Tuning, embed_on, set_up, train
from assets.training.views import Views, training_views

Loss = Callable[[torch.Tensor, np.ndarray], torch.Tensor]  # of unit-norm embeddings [B, d] of the training images of rows [B]


def train_image_tower(recipe: Recipe, training: Training, engine: Engine = HERE) -> None:
    if engine.remote:
        embed_on(engine, recipe)
    run_in_processes(training.processes, device_of(engine, recipe.settings.device), _train, recipe, training, engine=engine)


def _train(recipe: Recipe, training: Training) -> None:
    settings: ImageTower = recipe.settings
    captions = artifacts.training_captions_dir(recipe.name) if settings.caption_weight > 0 else None
    tuning = set_up(recipe, training, {"training_captions": captions} if captions else {})
    encoder, held_out = tuning.encoder, tuning.held_out
    classes, labels = np.unique(np.array(read_rows(artifacts.CURATED_IMAGES, "train")["label"].to_pylist()), return_inverse=True)
    own_classes = shard(len(classes))
    with first_before_others():
        images = encoder.images(Split(artifacts.CURATED_IMAGES, "train"))
        start_images = encoder.images(held_out.pictures)
    means = _class_means(images, labels, len(classes))
    centers = torch.nn.Parameter(means[own_classes.start : own_classes.stop].to(encoder.device))
    loss = _class_loss(centers, own_classes, labels, settings)
    if captions:
        loss = _weighted(loss, _caption_loss(captions, encoder, settings), settings.caption_weight)
    names = encoder.texts_now(held_out.names)
    in_batches = encoder.in_batches_of(settings.batch_size)

    def validate() -> dict[str, float | None]:
        now = in_batches.images_now(held_out.pictures)
        return {**validation.measures(held_out, now, names), **guards.health(now, start_images)}

    noise = guards.standard_errors(validation.precisions(held_out, start_images, names))
    task = _task(tuning, loss, centers, labels, validate)
    train(tuning, replace(task, cannot_choose=held_out.why_no_choice(settings.min_validation_pictures), noise=noise))


def _task(
    tuning: Tuning, loss: Loss, centers: torch.nn.Parameter, labels: np.ndarray, validate: Callable[[], dict[str, float | None]]
) -> Task[Views]:
    """The tower unlocked, with what feeds and moves it. labels [N]: of the training images."""
    settings: ImageTower = tuning.settings
    model, device = tuning.model, tuning.encoder.device
    unlock(model, "image", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    share_batch_statistics(model.visual)
    quicken_depthwise(model.visual)
    drop_patches(model, settings.patch_dropout)
    if settings.gradient_checkpointing:
        checkpoint_image_tower(model)
    encode = compiled(model.encode_image, device) if tuning.training.compile else model.encode_image

    def step_loss(batch: Views) -> torch.Tensor:
        rows, views = batch
        with autocast(device, settings.precision):
            embedded = encode(views)
        return loss(normalize(embedded.float(), dim=1), rows)

    size = fitting_batch(settings, len(labels))
    of_centers = {"params": [centers], "lr": settings.class_centers_lr, "weight_decay": 0.0}
    return Task(
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
            artifacts.CURATED_IMAGES,
            model,
            batch_size=size,
            augmentation=settings.augmentation.model_dump(),
            seed=settings.seed,
            device=device,
            classes=labels,
            images_per_class=settings.images_per_class,
        ),
        steps_per_epoch=batches_per_epoch(len(labels), size),
        loss=step_loss,
        validate=validate,
        select_by=validation.SEARCH,
        images_per_step=min(size, len(labels)),
        lock_batch_norm=size < settings.batch_norm_from,
        sharded=frozenset({"class_centers"}),
    )


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


def _class_means(embedded: np.ndarray, labels: np.ndarray, classes: int) -> torch.Tensor:
    """Where the class centers start: float32 [C, d], the mean of the starting model's embeddings [N, d] of each class."""
    sums = torch.zeros(classes, embedded.shape[1]).index_add_(0, torch.from_numpy(labels), torch.from_numpy(embedded))
    return normalize(sums, dim=1)
