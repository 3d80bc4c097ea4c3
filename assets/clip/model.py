"""A CLIP model as a directory of plain files: open_clip's configuration, safetensors, tokenizer, model card. No pickle, no absolute path.

How a model comes to be is the stages' concern.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file

from assets import artifacts
from assets.errors import UserError

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"

Clip = Any  # an open_clip model: its classes share encode_image, encode_text, visual and logit_scale, but no type
Preprocess = Callable[[Image.Image], torch.Tensor]
Tokenizer = Callable[[list[str]], torch.Tensor]


def load_clip(path: Path | str, device: str = "cpu") -> tuple[Clip, Preprocess, Tokenizer]:
    """(model in eval mode, preprocess, tokenizer) from a model directory; offline, from any working directory.

    Weights must fit exactly. A Hugging Face text tower's architecture is read from the directory itself: plain open_clip would look
    it up on the hub by its name.
    """
    directory = Path(path).resolve()
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise UserError(f"{path} is not a model directory: it has no {name}. `dvc repro` makes data/models/<recipe>.")
    text_cfg = json.loads((directory / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    overrides = {"text_cfg": {**text_cfg, "hf_model_name": str(directory)}} if "hf_model_name" in text_cfg else {}
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{directory}", device=device, **overrides)
    model.visual.to(memory_format=torch.channels_last)  # convolutions on a CPU are a quarter faster
    return model.eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{directory}")


def save_weights(model: Clip, directory: Path) -> None:
    """The model's state as safetensors, under open_clip's name."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(weights, directory / WEIGHTS)
    except SafetensorError as error:
        if "No space left" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "No space left on device", str(directory)) from error


def save_tuned(model: Clip, like: Path, directory: Path, card: dict[str, Any]) -> None:
    """Write `model`, a tuned copy of the model directory `like`, to `directory` in one step."""
    with artifacts.replacing(directory) as temporary:
        shutil.copytree(like, temporary, ignore=shutil.ignore_patterns(WEIGHTS, artifacts.MODEL_CARD))
        save_weights(model, temporary)
        artifacts.write_json(temporary / artifacts.MODEL_CARD, card)
