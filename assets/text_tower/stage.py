"""Stage text_tower@{gpr,mcip}: realign the text tower of models/<recipe>; writes models/<recipe>_rea and its history.

The image tower is locked, so its embeddings of the training images are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip import load_clip
from assets.clip.device import autocast, resolve_device
from assets.clip.encoding import encode_texts
from assets.clip.model import Clip, Tokenizer
from assets.clip.text_encoding import encode_tokens
from assets.clip.text_projection import project
from assets.clip.trainable import fold, learning_rate_shares, trained_parameters, unlock
from assets.embeddings import BATCH_SIZE, image_embeddings, locked_text_features
from assets.errors import UserError
from assets.params import TextTower
from assets.pictures.table import read_rows
from assets.training import guards, validation
from assets.training.contrastive import MAX_LOGIT_SCALE, global_info_nce_loss, global_sigmoid_loss
from assets.training.data import batches_per_epoch
from assets.training.distributed import first_before_others, own_rows, rank
from assets.training.loop import fit
from assets.training.optimizer import layer_decay_groups
from assets.training.processes import own_device, run_in_processes
from assets.training.randomness import generator_for
from assets.training.result import write_result
from assets.training.run import Task
from assets.training.state import state_dir_for
from assets.training.texts import ImageTexts, image_texts
from assets.training.towers import checkpoint_text_tower, compiled
from assets.training.views import view_embeddings

SELECT_BY = "text_to_image"


@dataclass(frozen=True)
class Batch:
    """b pairs of this rank, of B on all."""

    images: np.ndarray  # embeddings [b, d]
    texts: np.ndarray  # numbers [b]
    related_texts: np.ndarray  # bool [b, B]: own image i and everyone's text j
    related_images: np.ndarray  # bool [b, B]: own text i and everyone's image j


def realign_text_tower(settings: TextTower, recipe: str) -> None:
    run_in_processes(settings.processes, resolve_device(settings.device), _realign, settings, recipe)


def _realign(settings: TextTower, recipe: str) -> None:
    curated, tuned, realigned = artifacts.CURATED_IMAGES, artifacts.model_dir(recipe), f"{recipe}_rea"
    determined_by: dict[str, Any] = {
        "params": settings.model_dump(),
        "inputs": {"curated_images": artifacts.sha256_of(curated), recipe: artifacts.sha256_of(tuned)},
    }
    state_dir = state_dir_for(f"text_tower-{recipe}", determined_by)
    if settings.trains == "projection" and (settings.gradient_checkpointing or settings.compile):
        raise UserError("text_tower: a projection has no use for gradient_checkpointing and compile. Set them to false, or trains: all.")
    device = own_device(resolve_device(settings.device))
    torch.manual_seed(settings.seed + rank())  # of dropout
    model, preprocess, tokenizer = load_clip(tuned, device)
    texts = image_texts(read_rows(curated, "train"), with_class_names=True)
    options: dict[str, Any] = {"batch_size": BATCH_SIZE, "device": device, "precision": settings.precision}
    before: dict[str, Any] = {**options, "table_sha256": determined_by["inputs"]["curated_images"]}
    with first_before_others():
        images = image_embeddings(tuned, model, preprocess, curated, "train", **before)
        held_out_images = image_embeddings(tuned, model, preprocess, curated, "validation", **before)
        views = None
        if settings.views > 1:
            augmentation = settings.augmentation.model_dump()
            views = view_embeddings(
                tuned, model, curated, views=settings.views - 1, augmentation=augmentation, seed=settings.seed, **before
            )
        features = locked_text_features(tuned, model, tokenizer, texts.vocabulary, **options) if settings.trains == "projection" else None
    held_out = validation.read_validation_set(curated)
    start_names = encode_texts(model, tokenizer, held_out.names, **options)

    def measures(names: np.ndarray) -> dict[str, Any]:
        return {
            SELECT_BY: validation.text_to_image(names, held_out_images, held_out.relevant),
            **guards.health(names, start_names),
        }

    def validate() -> dict[str, Any]:
        return measures(encode_texts(model, tokenizer, held_out.names, **options))

    task = _task(model, tokenizer, images, views, texts, features, validate, settings, device)
    task = replace(task, start=measures(start_names), names=len(held_out.names))
    history = fit(task, settings, state_dir)
    fold(model, settings.trains)
    write_result(
        model, recipe=realigned, like=tuned, determined_by=determined_by, history=history, select_by=SELECT_BY, state_dir=state_dir
    )


def _task(
    model: Clip,
    tokenizer: Tokenizer,
    images: np.ndarray,
    views: np.ndarray | None,
    texts: ImageTexts,
    features: np.ndarray | None,
    validate: Callable[[], dict[str, Any]],
    settings: TextTower,
    device: str,
) -> Task[Batch]:
    """InfoNCE, or the sigmoid loss for a base that was trained with one (it has a logit bias).

    images: embeddings [N, d]; views: of further views of each, [N · (settings.views − 1), d], or None; features: what the projection takes
    of each text [T, w], where it alone trains, or None.
    """
    scales = {name: getattr(model, name) for name in ("logit_scale", "logit_bias") if getattr(model, name, None) is not None}
    if settings.gradient_checkpointing:
        checkpoint_text_tower(model)
    model.requires_grad_(False)
    unlock(model, "text", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    for parameter in scales.values():
        parameter.requires_grad_(True)
    encode = _projecting(model, features, device) if features is not None else _encoding(model, tokenizer, texts, settings, device)

    size, steps = min(settings.batch_size, len(images)), batches_per_epoch(len(images), settings.batch_size)

    def batches(epoch: int, done: int) -> Iterator[Batch]:
        order = torch.randperm(len(images), generator=generator_for(settings.seed, epoch)).numpy()
        for step in range(done, steps):
            everyone = order[step * size : (step + 1) * size]
            chosen = texts.draw(everyone, generator_for(settings.seed, epoch, step))
            own = own_rows(len(everyone))
            rows = everyone[own]
            embedded = images[rows]
            if views is not None:
                view = torch.randint(settings.views, (len(everyone),), generator=generator_for(settings.seed, epoch, step, 1)).numpy()[own]
                augmented = view > 0
                embedded[augmented] = views[(rows * (settings.views - 1) + view - 1)[augmented]]
            related = texts.related(rows, everyone, chosen)
            alone = len(rows) == len(everyone)
            yield Batch(embedded, chosen[own], related, related.T if alone else texts.related(everyone, rows, chosen[own]).T)

    def loss(batch: Batch) -> torch.Tensor:
        captions = normalize(encode(batch.texts), dim=1)
        own, related_texts, related_images = (
            torch.from_numpy(each).to(device) for each in (batch.images, batch.related_texts, batch.related_images)
        )
        scale = model.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        if "logit_bias" in scales:
            return global_sigmoid_loss(own, captions, scale, model.logit_bias, related_texts)
        return global_info_nce_loss(own, captions, scale, related_texts, related_images)

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
        logit_scale=model.logit_scale,
    )


def _encoding(
    model: Clip, tokenizer: Tokenizer, texts: ImageTexts, settings: TextTower, device: str
) -> Callable[[np.ndarray], torch.Tensor]:
    """Text numbers [B] to embeddings [B, d], through the whole tower."""
    tokens = tokenizer(texts.vocabulary)
    encode_text: Callable[..., torch.Tensor] = partial(encode_tokens, model)
    if settings.compile:
        encode_text = compiled(encode_text, device)

    def encode(chosen: np.ndarray) -> torch.Tensor:
        # the same text may be drawn for several images: encode it once
        distinct, position = np.unique(chosen, return_inverse=True)
        with autocast(device, settings.precision):
            encoded = encode_text(tokens[distinct], device)
        return encoded.float()[torch.from_numpy(position).to(device)]

    return encode


def _projecting(model: Clip, features: np.ndarray, device: str) -> Callable[[np.ndarray], torch.Tensor]:
    """Text numbers [B] to embeddings [B, d], from the locked layers' features [T, w]."""
    known = torch.from_numpy(features).to(device)

    def encode(chosen: np.ndarray) -> torch.Tensor:
        return project(model, known[torch.from_numpy(chosen).to(device)])

    return encode
