"""Stage text_tower@{gpr,mcip}: realign the text tower of models/<recipe>; writes models/<recipe>_rea and its history.

The image tower is locked, so its embeddings of the training images are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip import load_clip
from assets.clip.device import autocast, resolve_device
from assets.clip.encoding import encode_images, encode_texts, text_features, trimmed
from assets.clip.model import Clip, Tokenizer, save_tuned, text_parameters
from assets.clip.pictures import read_images, read_rows
from assets.clip.text_projection import project, text_projection_parameters, without_text_projection
from assets.errors import UserError
from assets.params import TextTower
from assets.training import validation
from assets.training.contrastive import MAX_LOGIT_SCALE, info_nce_loss, sigmoid_loss
from assets.training.data import batches_per_epoch
from assets.training.loop import Schedule, Task, best_row, decay_groups, fit, forget_state, state_dir_for
from assets.training.texts import ImageTexts, image_texts

INFERENCE_BATCH = 256  # of the locked image tower; no result depends on it

Batch = tuple[np.ndarray, np.ndarray]  # rows of the training images [B], text numbers [B]


def realign_text_tower(settings: TextTower, recipe: str) -> None:
    curated, tuned, realigned = artifacts.CURATED_IMAGES, artifacts.model_dir(recipe), f"{recipe}_rea"
    determined_by = {
        "recipe": realigned,
        "params": settings.model_dump(),
        "inputs": {"curated_images": artifacts.sha256_of(curated), recipe: artifacts.sha256_of(tuned)},
    }
    state_dir = state_dir_for(f"text_tower-{recipe}", determined_by)
    device = resolve_device(settings.device)
    torch.manual_seed(settings.seed)
    model, preprocess, tokenizer = load_clip(tuned, device)
    rows = read_rows(curated, "train")
    options: dict[str, Any] = {"batch_size": INFERENCE_BATCH, "device": device, "precision": settings.precision}
    images = encode_images(model, preprocess, read_images(curated, "train"), total=len(rows), **options)
    held_out = validation.read_validation_set(curated)
    held_out_images = held_out.encode(model, preprocess, **options)

    def validate() -> dict[str, Any]:
        names = encode_texts(model, tokenizer, held_out.names, **options)
        return {"text_to_image": validation.text_to_image(names, held_out_images, held_out.relevant)}

    texts = image_texts(rows, with_class_names=True)
    task = _task(model, tokenizer, torch.from_numpy(images).to(device), texts, validate, settings, device)
    schedule = Schedule(
        epochs=settings.epochs,
        warmup_fraction=settings.warmup_fraction,
        final_lr_fraction=settings.final_lr_fraction,
        gradient_clip_norm=settings.gradient_clip_norm,
        patience=None,
    )
    history = fit(task, schedule, state_dir)
    best = best_row(history, "text_to_image")
    measures = {name: value for name, value in best.items() if name.startswith("validation_")}
    save_tuned(model, tuned, artifacts.model_dir(realigned), {**determined_by, "validation": measures})
    artifacts.write_json(artifacts.history_file(realigned), {"recipe": realigned, "rows": history})
    forget_state(state_dir)


def _task(
    model: Clip,
    tokenizer: Tokenizer,
    images: torch.Tensor,
    texts: ImageTexts,
    validate: Callable[[], dict[str, Any]],
    settings: TextTower,
    device: str,
) -> Task[Batch]:
    """InfoNCE, or the sigmoid loss for a base that was trained with one (it has a logit bias)."""
    scales = {name: getattr(model, name) for name in ("logit_scale", "logit_bias") if getattr(model, name, None) is not None}
    weights = text_projection_parameters(model) if settings.trains == "projection" else text_parameters(model)
    if not weights:
        raise UserError("text_tower.trains: this model has no text projection. Set it to all.")
    model.requires_grad_(False)
    for parameter in (weights | scales).values():
        parameter.requires_grad_(True)
    encode = (
        _projecting(model, tokenizer, texts, settings, device)
        if settings.trains == "projection"
        else _encoding(model, tokenizer, texts, settings, device)
    )

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
        order = torch.randperm(len(images), generator=generator).numpy()
        size = min(settings.batch_size, len(order))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield rows, texts.draw(rows, generator)

    def loss(batch: Batch) -> torch.Tensor:
        rows, chosen = batch
        captions = normalize(encode(chosen), dim=1)
        related = torch.from_numpy(texts.related(rows, chosen)).to(device)
        own = images[torch.from_numpy(rows).to(device)]
        scale = model.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        if "logit_bias" in scales:
            return sigmoid_loss(own, captions, scale, model.logit_bias, related)
        return info_nce_loss(own, captions, scale, related)

    return Task(
        modules={"model": model},
        parameter_groups=[
            *decay_groups(weights, settings.lr, settings.weight_decay),
            {"params": list(scales.values()), "lr": settings.lr, "weight_decay": 0.0},
        ],
        batches=batches,
        steps_per_epoch=batches_per_epoch(len(images), settings.batch_size),
        loss=loss,
        validate=validate,
        select_by="text_to_image",
        images_per_step=settings.batch_size,
    )


def _encoding(
    model: Clip, tokenizer: Tokenizer, texts: ImageTexts, settings: TextTower, device: str
) -> Callable[[np.ndarray], torch.Tensor]:
    """Text numbers [B] to embeddings [B, d], through the whole tower."""
    tokens = tokenizer(texts.vocabulary)

    def encode(chosen: np.ndarray) -> torch.Tensor:
        # the same text may be drawn for several images: encode it once
        distinct, position = np.unique(chosen, return_inverse=True)
        with autocast(device, settings.precision):
            encoded = model.encode_text(trimmed(model, tokens[distinct]).to(device))
        return encoded.float()[torch.from_numpy(position).to(device)]

    return encode


def _projecting(
    model: Clip, tokenizer: Tokenizer, texts: ImageTexts, settings: TextTower, device: str
) -> Callable[[np.ndarray], torch.Tensor]:
    """Text numbers [B] to embeddings [B, d], from the locked layers' features, which are computed here, once."""
    with without_text_projection(model):
        features = text_features(
            model, tokenizer, texts.vocabulary, batch_size=INFERENCE_BATCH, device=device, precision=settings.precision
        )

    def encode(chosen: np.ndarray) -> torch.Tensor:
        return project(model, features[torch.from_numpy(chosen).to(device)])

    return encode
