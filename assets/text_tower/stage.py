"""Stage text_tower@RECIPE: realign the text tower of the model that the recipe starts from; writes models/<recipe> and its history.

The image tower is locked, so its embeddings of the training images are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip.device import autocast, device_of
from assets.clip.encoder import Encoder
from assets.clip.model import Clip
from assets.clip.text_encoding import encode_tokens
from assets.clip.text_projection import project
from assets.clip.trainable import learning_rate_shares, trained_parameters, unlock
from assets.engine import HERE, Engine
from assets.errors import UserError
from assets.params import TextTower, Training
from assets.pictures.split import Split
from assets.pictures.table import read_rows
from assets.recipes import Recipe
from assets.training import guards, validation
from assets.training.contrastive import MAX_LOGIT_SCALE, global_info_nce_loss, global_sigmoid_loss
from assets.training.distributed import first_before_others, own_rows
from assets.training.length import batches_per_epoch, fitting_batch
from assets.training.optimizer import layer_decay_groups
from assets.training.processes import run_in_processes
from assets.training.randomness import generator_for
from assets.training.relations import relation_loss
from assets.training.run import Task
from assets.training.texts import ImageTexts, image_texts
from assets.training.towers import checkpoint_text_tower, compiled
from assets.training.tuning import embed_on, set_up, train
from assets.training.views import view_embeddings


@dataclass(frozen=True)
class Batch:
    """b pairs of this rank, of B on all."""

    images: np.ndarray  # embeddings [b, d]
    texts: np.ndarray  # numbers [b]
    related_texts: np.ndarray  # bool [b, B]: own image i and everyone's text j
    related_images: np.ndarray  # bool [b, B]: own text i and everyone's image j


def realign_text_tower(recipe: Recipe, training: Training, engine: Engine = HERE) -> None:
    """`training.compile` has no effect where `trains` is projection: no tower runs at each step."""
    if engine.remote:
        embed_on(engine, recipe)
    run_in_processes(training.processes, device_of(engine, recipe.settings.device), _realign, recipe, training, engine=engine)


def _realign(recipe: Recipe, training: Training) -> None:
    settings: TextTower = recipe.settings
    if settings.trains == "projection" and settings.gradient_checkpointing:
        raise UserError("text_tower: a projection has no use for gradient_checkpointing. Set it to false, or trains: all.")
    tuning = set_up(recipe, training, {})
    encoder, held_out = tuning.encoder, tuning.held_out
    texts = image_texts(read_rows(artifacts.CURATED_IMAGES, "train"), with_class_names=True)
    pictures = Split(artifacts.CURATED_IMAGES, "train")
    with first_before_others():
        images = encoder.images(pictures)
        held_out_images = encoder.images(held_out.pictures)
        views = None
        if settings.views > 1:
            augmentation = settings.augmentation.model_dump()
            views = view_embeddings(encoder, pictures, views=settings.views - 1, augmentation=augmentation, seed=settings.seed)
        features = encoder.text_features(texts.vocabulary) if settings.trains == "projection" or settings.relation_weight > 0 else None
    start_names = encoder.texts_now(held_out.names)

    def validate() -> dict[str, float | None]:
        now = encoder.texts_now(held_out.names)
        return {**validation.measures(held_out, held_out_images, now), **guards.health(now, start_names)}

    noise = guards.standard_errors(validation.precisions(held_out, held_out_images, start_names))
    task = _task(encoder, images, views, texts, features, validate, settings, compile_tower=training.compile)
    train(tuning, replace(task, cannot_choose=held_out.why_no_choice(settings.min_validation_pictures), noise=noise))


def _task(
    encoder: Encoder,
    images: np.ndarray,
    views: np.ndarray | None,
    texts: ImageTexts,
    features: np.ndarray | None,
    validate: Callable[[], dict[str, float | None]],
    settings: TextTower,
    *,
    compile_tower: bool,
) -> Task[Batch]:
    """InfoNCE; with `settings.loss` base, the sigmoid loss for a base that was trained with one (it has a logit bias).

    InfoNCE's logit scale is at most CLIP's bound, also at the start: a sigmoid base may come with more, and beyond the bound nothing would
    move it. The sigmoid loss has no bound. The logit bias stays as it is where InfoNCE trains.

    With `settings.relation_weight`, the texts of a batch also keep how they lie to each other before the projection, as the start has it:
    what the tower knows about names that it is not trained on is in that geometry.

    images: embeddings [N, d]; views: of further views of each, [N · (settings.views − 1), d], or None; features: what the projection takes
    of each text [T, w] at the start, where it alone trains or relations are kept, or None.
    """
    model, device = encoder.model, encoder.device
    sigmoid = settings.loss == "base" and getattr(model, "logit_bias", None) is not None
    scales = {name: getattr(model, name) for name in (("logit_scale", "logit_bias") if sigmoid else ("logit_scale",))}
    if settings.gradient_checkpointing:
        checkpoint_text_tower(model)
    unlock(model, "text", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    for parameter in scales.values():
        parameter.requires_grad_(True)
    if settings.trains == "projection":
        assert features is not None
        encode = _projecting(model, features, device)
    else:
        encode = _encoding(encoder, texts, compile_tower=compile_tower)

    size = min(fitting_batch(settings, len(images)), len(images))

    def loss(batch: Batch) -> torch.Tensor:
        captions = normalize(encode(batch.texts), dim=1)
        own, related_texts, related_images = (
            torch.from_numpy(each).to(device) for each in (batch.images, batch.related_texts, batch.related_images)
        )
        aligned = alignment(own, captions, related_texts, related_images)
        if features is None or not settings.relation_weight:
            return aligned
        teacher = torch.from_numpy(features[batch.texts]).to(device)
        return aligned + settings.relation_weight * relation_loss(captions, teacher, related_texts, settings.relation_temperature)

    def alignment(own: torch.Tensor, captions: torch.Tensor, related_texts: torch.Tensor, related_images: torch.Tensor) -> torch.Tensor:
        if sigmoid:
            return global_sigmoid_loss(own, captions, model.logit_scale.exp(), model.logit_bias, related_texts)
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        return global_info_nce_loss(own, captions, model.logit_scale.exp(), related_texts, related_images)

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
        batches=_pairs(images, views, texts, size, settings),
        steps_per_epoch=batches_per_epoch(len(images), size),
        loss=loss,
        validate=validate,
        select_by=validation.SEARCH,
        images_per_step=size,
        logit_scale=model.logit_scale,
    )


def _pairs(
    images: np.ndarray, views: np.ndarray | None, texts: ImageTexts, size: int, settings: TextTower
) -> Callable[[int, int], Iterator[Batch]]:
    """batches(epoch, done): full batches of the pictures, each epoch in another order, with one text and one view of each."""

    def batches(epoch: int, done: int) -> Iterator[Batch]:
        order = torch.randperm(len(images), generator=generator_for(settings.seed, epoch)).numpy()
        for step in range(done, batches_per_epoch(len(images), size)):
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

    return batches


def _encoding(encoder: Encoder, texts: ImageTexts, *, compile_tower: bool) -> Callable[[np.ndarray], torch.Tensor]:
    """Text numbers [B] to embeddings [B, d], through the whole tower."""
    tokens, device = encoder.tokenizer(texts.vocabulary), encoder.device
    encode_text: Callable[..., torch.Tensor] = partial(encode_tokens, encoder.model)
    if compile_tower:
        encode_text = compiled(encode_text, device)

    def encode(chosen: np.ndarray) -> torch.Tensor:
        # the same text may be drawn for several images: encode it once
        distinct, position = np.unique(chosen, return_inverse=True)
        with autocast(device, encoder.precision):
            encoded = encode_text(tokens[distinct], device)
        return encoded.float()[torch.from_numpy(position).to(device)]

    return encode


def _projecting(model: Clip, features: np.ndarray, device: str) -> Callable[[np.ndarray], torch.Tensor]:
    """Text numbers [B] to embeddings [B, d], from the locked layers' features [T, w]."""
    known = torch.from_numpy(features).to(device)

    def encode(chosen: np.ndarray) -> torch.Tensor:
        return project(model, known[torch.from_numpy(chosen).to(device)])

    return encode
