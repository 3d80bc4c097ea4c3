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
from assets.clip.encoding import encode_images, encode_texts, encode_tokens, text_features
from assets.clip.model import Clip, Tokenizer
from assets.clip.pictures import read_images, read_rows
from assets.clip.text_projection import project, without_text_projection
from assets.clip.trainable import fold, learning_rate_shares, trained_parameters, unlock
from assets.params import TextTower
from assets.training import validation
from assets.training.contrastive import MAX_LOGIT_SCALE, info_nce_loss, sigmoid_loss
from assets.training.data import batches_per_epoch
from assets.training.layer_decay import layer_decay_groups
from assets.training.loop import Task, fit, state_dir_for
from assets.training.randomness import generator_for
from assets.training.result import write_result
from assets.training.texts import ImageTexts, image_texts

INFERENCE_BATCH = 256  # of the locked image tower; no result depends on it
SELECT_BY = "text_to_image"

Batch = tuple[np.ndarray, np.ndarray]  # rows of the training images [B], text numbers [B]


def realign_text_tower(settings: TextTower, recipe: str) -> None:
    curated, tuned, realigned = artifacts.CURATED_IMAGES, artifacts.model_dir(recipe), f"{recipe}_rea"
    determined_by = {
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
        return {SELECT_BY: validation.text_to_image(names, held_out_images, held_out.relevant)}

    texts = image_texts(rows, with_class_names=True)
    task = _task(model, tokenizer, torch.from_numpy(images).to(device), texts, validate, settings, device)
    history = fit(task, settings, state_dir)
    fold(model, settings.trains)
    write_result(
        model, recipe=realigned, like=tuned, determined_by=determined_by, history=history, select_by=SELECT_BY, state_dir=state_dir
    )


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
    model.requires_grad_(False)
    unlock(model, "text", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    for parameter in scales.values():
        parameter.requires_grad_(True)
    encode = (
        _projecting(model, tokenizer, texts, settings, device)
        if settings.trains == "projection"
        else _encoding(model, tokenizer, texts, settings, device)
    )

    size, steps = min(settings.batch_size, len(images)), batches_per_epoch(len(images), settings.batch_size)

    def batches(epoch: int, done: int) -> Iterator[Batch]:
        order = torch.randperm(len(images), generator=generator_for(settings.seed, epoch)).numpy()
        for step in range(done, steps):
            rows = order[step * size : (step + 1) * size]
            yield rows, texts.draw(rows, generator_for(settings.seed, epoch, step))

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
            *layer_decay_groups(
                trained_parameters(model, "text"),
                learning_rate_shares(model, "text", settings.layer_decay),
                settings.lr,
                settings.weight_decay,
            ),
            {"params": list(scales.values()), "lr": settings.lr, "weight_decay": 0.0},
        ],
        batches=batches,
        steps_per_epoch=steps,
        loss=loss,
        validate=validate,
        select_by=SELECT_BY,
        images_per_step=size,
        patience=None,
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
            encoded = encode_tokens(model, tokens[distinct], device)
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
