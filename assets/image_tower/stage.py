"""Stage image_tower@{gpr,mcip}: tune the image tower of models/base, the text tower locked; writes models/<recipe> and its history.

gpr: ArcMargin on class labels (GPR-FT). mcip: ArcMargin and Multi-Caption-ArcMargin (MCIP), weighted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip import load_clip
from assets.clip.device import autocast, resolve_device
from assets.clip.encoding import encode_images, encode_texts
from assets.clip.model import Clip, Preprocess, image_parameters, save_tuned, unlock_image_tower
from assets.clip.pictures import read_images, read_rows
from assets.image_tower.captions import CaptionSets
from assets.image_tower.losses import arc_margin_loss, multi_caption_arc_margin_loss
from assets.params import ImageTower
from assets.training import validation
from assets.training.augmentation import augment, stored_size
from assets.training.data import batches_per_epoch, training_batches
from assets.training.loop import Schedule, Task, best_row, decay_groups, fit, forget_state, state_dir_for

logger = logging.getLogger(__name__)

Batch = tuple[np.ndarray, torch.Tensor]  # rows [B], views float32 [B, 3, R, R] in [0, 1]


def train_image_tower(settings: ImageTower, recipe: str) -> None:
    curated, base = artifacts.CURATED_IMAGES, artifacts.model_dir("base")
    determined_by = {
        "recipe": recipe,
        "params": settings.model_dump(),
        "inputs": {
            "curated_images": artifacts.sha256_of(curated),
            "base": artifacts.sha256_of(base),
            **({"captions": artifacts.sha256_of(artifacts.CAPTIONS.parent)} if recipe == "mcip" else {}),
        },
    }
    state_dir = state_dir_for(f"image_tower-{recipe}", determined_by)
    device = resolve_device(settings.device)
    model, preprocess, tokenizer = load_clip(base, device)
    model.requires_grad_(False)
    rows = read_rows(curated, "train")
    classes, labels = np.unique(np.array(rows["label"].to_pylist()), return_inverse=True)
    options: dict[str, Any] = {"batch_size": settings.batch_size, "device": device, "precision": settings.precision}

    captions, caption_embeddings = None, None
    if recipe == "mcip":
        table, assigned = pq.read_table(artifacts.CAPTIONS), pq.read_table(artifacts.IMAGE_CAPTIONS)
        captions = CaptionSets.from_lists(assigned["caption_ids"].to_pylist(), np.array(table["cluster"]))
        encoded = encode_texts(model, tokenizer, table["caption"].to_pylist(), **options)
        caption_embeddings = torch.from_numpy(encoded).to(device)  # the text tower is locked: once is enough

    centers = _class_means(model, preprocess, curated, labels, len(classes), options)
    held_out = validation.read_validation_set(curated)
    names = encode_texts(model, tokenizer, held_out.names, **options)

    history = _tune(model, preprocess, centers, labels, captions, caption_embeddings, held_out, names, settings, curated, device, state_dir)
    best = best_row(history, "image_to_image")
    measures = {name: value for name, value in best.items() if name.startswith("validation_")}
    save_tuned(model, base, artifacts.model_dir(recipe), {**determined_by, "validation": measures})
    artifacts.write_json(artifacts.history_file(recipe), {"recipe": recipe, "rows": history})
    forget_state(state_dir)


def _tune(
    model: Clip,
    preprocess: Preprocess,
    centers: torch.nn.Parameter,
    labels: np.ndarray,
    captions: CaptionSets | None,
    caption_embeddings: torch.Tensor | None,
    held_out: validation.ValidationSet,
    names: np.ndarray,
    settings: ImageTower,
    curated: Path,
    device: str,
    state_dir: Path,
) -> list[dict[str, Any]]:
    unlock_image_tower(model, settings.unlocked_groups)
    model.visual.to(memory_format=torch.channels_last)
    size = model.visual.image_size[0] if isinstance(model.visual.image_size, tuple | list) else model.visual.image_size
    mean = torch.tensor(model.visual.preprocess_cfg["mean"], device=device).view(3, 1, 1)
    std = torch.tensor(model.visual.preprocess_cfg["std"], device=device).view(3, 1, 1)

    kept: dict[int, np.ndarray] = {}

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
        stored = stored_size(size)
        reading: dict[str, Any] = {"batch_size": settings.batch_size, "size": stored, "generator": generator, "kept": kept}
        for rows, pixels in training_batches(curated, "train", **reading):
            yield rows, augment(pixels.to(device), size, **settings.augmentation.model_dump(), generator=generator)

    def loss(batch: Batch) -> torch.Tensor:
        rows, views = batch
        with autocast(device, settings.precision):
            embedded = model.encode_image(((views - mean) / std).contiguous(memory_format=torch.channels_last))
        embedded = normalize(embedded.float(), dim=1)
        targets = torch.from_numpy(labels[rows]).to(device)
        class_loss = arc_margin_loss(embedded, centers, targets, settings.scale, settings.margin)
        if captions is None or caption_embeddings is None:
            return class_loss
        candidates, positives, ignored = captions.of_batch(rows)
        caption_loss = multi_caption_arc_margin_loss(
            embedded,
            caption_embeddings[torch.from_numpy(candidates).to(device)],
            torch.from_numpy(positives).to(device),
            settings.scale,
            settings.margin,
            torch.from_numpy(ignored).to(device),
        )
        return (1 - settings.caption_weight) * class_loss + settings.caption_weight * caption_loss

    def validate() -> dict[str, Any]:
        images = held_out.encode(model, preprocess, batch_size=settings.batch_size, device=device, precision=settings.precision)
        return {
            "image_to_image": validation.image_to_image(images, held_out.labels),
            "text_to_image": validation.text_to_image(names, images, held_out.relevant),
        }

    task = Task(
        modules={"visual": model.visual, "class_centers": torch.nn.ParameterList([centers])},
        parameter_groups=[
            *decay_groups(image_parameters(model), settings.lr, settings.weight_decay),
            {"params": [centers], "lr": settings.class_centers_lr, "weight_decay": 0.0},
        ],
        batches=batches,
        steps_per_epoch=batches_per_epoch(len(labels), settings.batch_size),
        loss=loss,
        validate=validate,
        select_by="image_to_image",
        images_per_step=settings.batch_size,
    )
    schedule = Schedule(
        epochs=settings.epochs,
        warmup_fraction=settings.warmup_fraction,
        final_lr_fraction=settings.final_lr_fraction,
        gradient_clip_norm=settings.gradient_clip_norm,
        patience=None,
    )
    return fit(task, schedule, state_dir)


def _class_means(
    model: Clip, preprocess: Preprocess, curated: Path, labels: np.ndarray, classes: int, options: dict[str, Any]
) -> torch.nn.Parameter:
    """Where the class centers start: float32 [C, d], the base model's mean embedding of each class."""
    embedded = torch.from_numpy(encode_images(model, preprocess, read_images(curated, "train"), total=len(labels), **options))
    sums = torch.zeros(classes, embedded.shape[1]).index_add_(0, torch.from_numpy(labels), embedded)
    return torch.nn.Parameter(normalize(sums, dim=1).to(options["device"]))
