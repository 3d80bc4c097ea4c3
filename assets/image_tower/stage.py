"""Stage image_tower@{gpr,mcip}: tune the image tower of models/base, the text tower locked; writes models/<recipe> and its history.

gpr: ArcMargin on class labels (GPR-FT). mcip: ArcMargin and Multi-Caption-ArcMargin (MCIP), weighted.
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
from assets.clip import load_clip
from assets.clip.device import autocast, resolve_device
from assets.clip.encoding import encode_texts
from assets.clip.model import Clip, Preprocess, Tokenizer
from assets.clip.trainable import fold, learning_rate_shares, trained_parameters, unlock
from assets.embeddings import BATCH_SIZE, image_embeddings, text_embeddings
from assets.image_tower.captions import CaptionSets
from assets.image_tower.losses import multi_caption_arc_margin_loss, sample_classes, sharded_arc_margin_loss
from assets.params import ImageTower
from assets.pictures.table import read_rows
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


def train_image_tower(settings: ImageTower, recipe: str) -> None:
    run_in_processes(settings.processes, resolve_device(settings.device), _train, settings, recipe)


def _train(settings: ImageTower, recipe: str) -> None:
    curated, base = artifacts.CURATED_IMAGES, artifacts.model_dir("base")
    determined_by: dict[str, Any] = {
        "params": settings.model_dump(),
        "inputs": {
            "curated_images": artifacts.sha256_of(curated),
            "base": artifacts.sha256_of(base),
            **({"captions": artifacts.sha256_of(artifacts.CAPTIONS.parent)} if recipe == "mcip" else {}),
        },
    }
    state_dir = state_dir_for(f"image_tower-{recipe}", determined_by)
    device = own_device(resolve_device(settings.device))
    torch.manual_seed(settings.seed + rank())  # of dropout
    model, preprocess, tokenizer = load_clip(base, device)
    model.requires_grad_(False)
    options: dict[str, Any] = {"batch_size": settings.batch_size, "device": device, "precision": settings.precision}
    classes, labels = np.unique(np.array(read_rows(curated, "train")["label"].to_pylist()), return_inverse=True)
    before: dict[str, Any] = {**options, "batch_size": BATCH_SIZE}
    table_sha256 = determined_by["inputs"]["curated_images"]
    own_classes = shard(len(classes))
    with first_before_others():
        images = image_embeddings(base, model, preprocess, curated, "train", table_sha256=table_sha256, **before)
        held_out_images = image_embeddings(base, model, preprocess, curated, "validation", table_sha256=table_sha256, **before)
    means = _class_means(images, labels, len(classes))
    centers = torch.nn.Parameter(means[own_classes.start : own_classes.stop].to(device))
    loss = _class_loss(centers, own_classes, labels, settings)
    if recipe == "mcip":
        loss = _weighted(loss, _caption_loss(base, model, tokenizer, settings, before), settings.caption_weight)
    held_out, validate, start = _validation(model, preprocess, tokenizer, curated, held_out_images, options)
    unlock(model, "image", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    share_batch_statistics(model.visual)
    drop_patches(model, settings.patch_dropout)
    if settings.gradient_checkpointing:
        checkpoint_image_tower(model)
    encode = compiled(model.encode_image, device) if settings.compile else model.encode_image

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
        start=start,
        names=len(held_out.names),
        sharded=frozenset({"class_centers"}),
    )
    history = fit(task, settings, state_dir)
    fold(model, settings.trains)
    write_result(model, recipe=recipe, like=base, determined_by=determined_by, history=history, select_by=SELECT_BY, state_dir=state_dir)


def _class_loss(centers: torch.nn.Parameter, own_classes: range, labels: np.ndarray, settings: ImageTower) -> Loss:
    """`centers`: of this rank's classes; with `settings.sampled_classes` this rank's share of so many at each step."""
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


def _caption_loss(base: Path, model: Clip, tokenizer: Tokenizer, settings: ImageTower, options: dict[str, Any]) -> Loss:
    """The text tower is locked, so the captions are encoded once. `model` and `tokenizer` are those of the directory `base`."""
    table, assigned = pq.read_table(artifacts.CAPTIONS), pq.read_table(artifacts.IMAGE_CAPTIONS)
    captions = CaptionSets.from_lists(assigned["caption_ids"].to_pylist(), np.array(table["cluster"]))
    with first_before_others():
        encoded = text_embeddings(base, model, tokenizer, table["caption"].to_pylist(), **options)

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
    model: Clip, preprocess: Preprocess, tokenizer: Tokenizer, curated: Path, start: np.ndarray, options: dict[str, Any]
) -> tuple[validation.ValidationSet, Callable[[], dict[str, float | None]], dict[str, float | None]]:
    """(the validation set, its measures of the model as it is, those of the base whose embeddings of its images are `start` [N, d])."""
    held_out = validation.read_validation_set(curated)
    names = encode_texts(model, tokenizer, held_out.names, **options)

    def measures(images: np.ndarray) -> dict[str, float | None]:
        return {
            "image_to_image": validation.image_to_image(images, held_out.labels),
            "text_to_image": validation.text_to_image(names, images, held_out.relevant),
            **guards.health(images, start),
        }

    return held_out, lambda: measures(held_out.encode(model, preprocess, **options)), measures(start)


def _class_means(embedded: np.ndarray, labels: np.ndarray, classes: int) -> torch.Tensor:
    """Where the class centers start: float32 [C, d], the base model's mean embedding [N, d] of each class."""
    sums = torch.zeros(classes, embedded.shape[1]).index_add_(0, torch.from_numpy(labels), torch.from_numpy(embedded))
    return normalize(sums, dim=1)
