"""Stage image_tower@{gpr,mcip}: tune the image tower of models/base, the text tower locked; writes models/<recipe> and its history.

gpr: ArcMargin on class labels (GPR-FT). mcip: ArcMargin and Multi-Caption-ArcMargin (MCIP), weighted.
"""

from __future__ import annotations

from collections.abc import Callable
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
from assets.clip.model import Clip, Preprocess, Tokenizer
from assets.clip.pictures import read_images, read_rows
from assets.clip.trainable import fold, learning_rate_shares, trained_parameters, unlock
from assets.image_tower.captions import CaptionSets
from assets.image_tower.losses import arc_margin_loss, multi_caption_arc_margin_loss
from assets.params import ImageTower
from assets.training import validation
from assets.training.data import batches_per_epoch
from assets.training.layer_decay import layer_decay_groups
from assets.training.loop import Task, fit, state_dir_for
from assets.training.result import write_result
from assets.training.views import Views, training_views

SELECT_BY = "image_to_image"

Loss = Callable[[torch.Tensor, np.ndarray], torch.Tensor]  # of unit-norm embeddings [B, d] of the training images of rows [B]


def train_image_tower(settings: ImageTower, recipe: str) -> None:
    curated, base = artifacts.CURATED_IMAGES, artifacts.model_dir("base")
    determined_by = {
        "params": settings.model_dump(),
        "inputs": {
            "curated_images": artifacts.sha256_of(curated),
            "base": artifacts.sha256_of(base),
            **({"captions": artifacts.sha256_of(artifacts.CAPTIONS.parent)} if recipe == "mcip" else {}),
        },
    }
    state_dir = state_dir_for(f"image_tower-{recipe}", determined_by)
    device = resolve_device(settings.device)
    torch.manual_seed(settings.seed)  # of dropout
    model, preprocess, tokenizer = load_clip(base, device)
    model.requires_grad_(False)
    options: dict[str, Any] = {"batch_size": settings.batch_size, "device": device, "precision": settings.precision}
    classes, labels = np.unique(np.array(read_rows(curated, "train")["label"].to_pylist()), return_inverse=True)
    centers = _class_means(model, preprocess, curated, labels, len(classes), options)
    loss = _class_loss(centers, labels, settings)
    if recipe == "mcip":
        loss = _weighted(loss, _caption_loss(model, tokenizer, settings, options), settings.caption_weight)
    validate = _validation(model, preprocess, tokenizer, curated, options)
    unlock(model, "image", settings.trains, settings.unlocked_groups, settings.lora.model_dump())

    def step_loss(batch: Views) -> torch.Tensor:
        rows, views = batch
        with autocast(device, settings.precision):
            embedded = model.encode_image(views)
        return loss(normalize(embedded.float(), dim=1), rows)

    task = Task(
        modules={"visual": model.visual, "class_centers": torch.nn.ParameterList([centers])},
        parameter_groups=[
            *layer_decay_groups(
                trained_parameters(model, "image"),
                learning_rate_shares(model, "image", settings.layer_decay),
                settings.lr,
                settings.weight_decay,
            ),
            {"params": [centers], "lr": settings.class_centers_lr, "weight_decay": 0.0},
        ],
        batches=training_views(
            curated,
            model,
            batch_size=settings.batch_size,
            augmentation=settings.augmentation.model_dump(),
            seed=settings.seed,
            device=device,
        ),
        steps_per_epoch=batches_per_epoch(len(labels), settings.batch_size),
        loss=step_loss,
        validate=validate,
        select_by=SELECT_BY,
        images_per_step=min(settings.batch_size, len(labels)),
        patience=None,
    )
    history = fit(task, settings, state_dir)
    fold(model, settings.trains)
    write_result(model, recipe=recipe, like=base, determined_by=determined_by, history=history, select_by=SELECT_BY, state_dir=state_dir)


def _class_loss(centers: torch.nn.Parameter, labels: np.ndarray, settings: ImageTower) -> Loss:
    def loss(embedded: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        targets = torch.from_numpy(labels[rows]).to(embedded.device)
        return arc_margin_loss(embedded, centers, targets, settings.scale, settings.margin)

    return loss


def _caption_loss(model: Clip, tokenizer: Tokenizer, settings: ImageTower, options: dict[str, Any]) -> Loss:
    """The text tower is locked, so the captions are encoded here, once."""
    table, assigned = pq.read_table(artifacts.CAPTIONS), pq.read_table(artifacts.IMAGE_CAPTIONS)
    captions = CaptionSets.from_lists(assigned["caption_ids"].to_pylist(), np.array(table["cluster"]))
    encoded = torch.from_numpy(encode_texts(model, tokenizer, table["caption"].to_pylist(), **options)).to(options["device"])

    def loss(embedded: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        candidates, positives, ignored = (torch.from_numpy(each).to(embedded.device) for each in captions.of_batch(rows))
        return multi_caption_arc_margin_loss(embedded, encoded[candidates], positives, settings.scale, settings.margin, ignored)

    return loss


def _weighted(class_loss: Loss, caption_loss: Loss, caption_weight: float) -> Loss:
    """MCIP: (1 − weight)·ArcMargin + weight·MCArcMargin."""
    return lambda embedded, rows: (1 - caption_weight) * class_loss(embedded, rows) + caption_weight * caption_loss(embedded, rows)


def _validation(
    model: Clip, preprocess: Preprocess, tokenizer: Tokenizer, curated: Path, options: dict[str, Any]
) -> Callable[[], dict[str, float | None]]:
    held_out = validation.read_validation_set(curated)
    names = encode_texts(model, tokenizer, held_out.names, **options)

    def validate() -> dict[str, float | None]:
        images = held_out.encode(model, preprocess, **options)
        return {
            "image_to_image": validation.image_to_image(images, held_out.labels),
            "text_to_image": validation.text_to_image(names, images, held_out.relevant),
        }

    return validate


def _class_means(
    model: Clip, preprocess: Preprocess, curated: Path, labels: np.ndarray, classes: int, options: dict[str, Any]
) -> torch.nn.Parameter:
    """Where the class centers start: float32 [C, d], the base model's mean embedding of each class."""
    embedded = torch.from_numpy(encode_images(model, preprocess, read_images(curated, "train"), total=len(labels), **options))
    sums = torch.zeros(classes, embedded.shape[1]).index_add_(0, torch.from_numpy(labels), embedded)
    return torch.nn.Parameter(normalize(sums, dim=1).to(options["device"]))
