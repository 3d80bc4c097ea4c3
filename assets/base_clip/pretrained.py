"""A base from open_clip: a model name with a pretrained tag (downloaded by open_clip) or with a checkpoint file on disk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import open_clip

from assets import artifacts
from assets.clip.model import CONFIG, save_weights
from assets.errors import Unreachable, UserError
from assets.params import OpenClip
from assets.recipes import BASE

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def make_pretrained_clip(settings: OpenClip, target: Path) -> None:
    """Load strictly (pickled checkpoints with weights_only) and save as a model directory."""
    if settings.model not in open_clip.list_models():
        near = [name for name in open_clip.list_models() if name.split("-")[0].lower() == settings.model.split("-")[0].lower()]
        raise UserError(
            f"base_clip.model: open_clip has no {settings.model!r}. Near it: {', '.join(near[:12]) or 'none'};"
            " all: python -c 'import open_clip; print(open_clip.list_models())'."
        )
    _check_pretrained(settings)
    try:
        model, _, _ = open_clip.create_model_and_transforms(
            settings.model,
            pretrained=settings.pretrained,
            device="cpu",
            force_quick_gelu=_quick_gelu(settings),
            image_resize_mode=None if settings.resize == "own" else settings.resize,
        )
        tokenizer = open_clip.get_tokenizer(settings.model)
    except RuntimeError as error:
        raise UserError(f"base_clip: {settings.pretrained} does not fit {settings.model}: {_first_lines(error)}") from None
    except Exception as error:  # unpickling, hub and network errors come as many types
        kind = Unreachable if isinstance(error, OSError) or not Path(settings.pretrained).is_file() else UserError
        raise kind(f"base_clip: {settings.model} with {settings.pretrained} cannot be loaded: {_first_lines(error)}") from None
    preprocess = {name: value for name, value in open_clip.get_model_preprocess_cfg(model).items() if value is not None}
    with artifacts.replacing(target) as temporary:
        temporary.mkdir(parents=True)
        config: dict[str, Any] = {"model_cfg": open_clip.get_model_config(settings.model), "preprocess_cfg": preprocess}
        if _quick_gelu(settings):
            config["model_cfg"]["quick_gelu"] = True
        if isinstance(tokenizer, open_clip.tokenizer.HFTokenizer):
            tokenizer.tokenizer.save_pretrained(temporary)
        if "hf_model_name" in config["model_cfg"]["text_cfg"]:
            model.text.config.save_pretrained(temporary)
            config["model_cfg"]["text_cfg"]["hf_model_pretrained"] = False
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_weights(model, temporary)
        card = {"recipe": BASE, "stage": "base_clip", "made_from": [], **_origin(settings), "validation": {}}
        artifacts.write_json(temporary / artifacts.MODEL_CARD, card)


def _check_pretrained(settings: OpenClip) -> None:
    tags = open_clip.list_pretrained_tags_by_model(settings.model)
    if settings.pretrained in tags or (Path(settings.pretrained).is_file() and settings.pretrained.endswith(CHECKPOINT_SUFFIXES)):
        return
    raise UserError(
        f"base_clip.pretrained: {settings.pretrained!r} is neither a tag of {settings.model} ({', '.join(tags) or 'it has none'})"
        f" nor a checkpoint file ({', '.join(CHECKPOINT_SUFFIXES)}) that exists in {Path.cwd()}."
    )


def _origin(settings: OpenClip) -> dict[str, Any]:
    """Params and inputs as the model card has them: a checkpoint file by its name and hash, for its folder is this machine's concern."""
    file = Path(settings.pretrained)
    if settings.pretrained in open_clip.list_pretrained_tags_by_model(settings.model) or not file.is_file():
        return {"params": settings.model_dump(), "inputs": {}}
    return {"params": settings.model_dump() | {"pretrained": file.name}, "inputs": {file.name: artifacts.sha256_of(file)}}


def _quick_gelu(settings: OpenClip) -> bool:
    """Whether the tag's weights were trained with QuickGELU, which the model's name does not show (openai's were): open_clip only warns."""
    return bool(open_clip.get_pretrained_cfg(settings.model, settings.pretrained).get("quick_gelu", False))


def _first_lines(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:400] or type(error).__name__
