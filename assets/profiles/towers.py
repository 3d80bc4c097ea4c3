"""What training each tower of a profile's model costs: the model is built without weights or tokenizer. Counting is cost.py's."""

from __future__ import annotations

from functools import partial

import open_clip
import torch

from assets.base_clip.demo import CONTEXT_LENGTH, untrained_clip
from assets.clip.image_towers import image_tower_of
from assets.clip.model import Clip
from assets.clip.text_projection import project, projection_width
from assets.clip.text_towers import HuggingFace, text_tower_of
from assets.clip.trainable import unlock
from assets.errors import UserError
from assets.params import BaseClip, DemoClip, ImageTower, TextTower
from assets.profiles.cost import Cost, training_cost

COUNTED = 2  # inputs of the forward pass that is counted


def build_model(settings: BaseClip) -> tuple[Clip, int]:
    """(the profile's model on the meta device, the most tokens of a text)."""
    with torch.device("meta"):
        if isinstance(settings, DemoClip):
            return untrained_clip(settings.image_size), CONTEXT_LENGTH
        tags = open_clip.list_pretrained_tags_by_model(settings.model)
        if settings.pretrained not in tags:
            raise UserError(
                f"base_clip: open_clip has no {settings.model} with {settings.pretrained!r}; it has {', '.join(tags) or 'none'}."
            )
        model = open_clip.create_model(settings.model, load_weights=False, pretrained_text=False, device="meta")
        return model, open_clip.get_model_config(settings.model)["text_cfg"].get("context_length", 77)


def image_cost(model: Clip, settings: ImageTower) -> Cost:
    """Adapters, where they train, stay on the tower: a text tower's cost then counts them among the locked parameters."""
    model.requires_grad_(False)
    unlock(model, "image", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    pixels = torch.zeros(COUNTED, 3, *image_tower_of(model).sides, device="meta")
    return training_cost(
        model,
        partial(model.encode_image, pixels),
        batch_size=settings.batch_size,
        inputs=COUNTED,
        half=settings.precision != "fp32",
        checkpointing=settings.gradient_checkpointing,
        ema=settings.ema_decay is not None,
    )


def text_cost(model: Clip, context_length: int, settings: TextTower) -> Cost:
    model.requires_grad_(False)
    unlock(model, "text", settings.trains, settings.unlocked_groups, settings.lora.model_dump())
    if settings.trains == "projection":  # what is before it runs once, not every step
        features = torch.zeros(COUNTED, projection_width(model), device="meta")
        encode = partial(project, model, features)
    elif isinstance(text_tower_of(model), HuggingFace):
        raise UserError(
            "text_tower.trains: a Hugging Face tower asks for its inputs' values, so only the cost of `projection` can be counted."
        )
    else:
        encode = partial(model.encode_text, torch.ones(COUNTED, context_length, dtype=torch.int64, device="meta"))
    return training_cost(
        model,
        encode,
        batch_size=settings.batch_size,
        inputs=COUNTED,
        half=settings.precision != "fp32",
        checkpointing=settings.gradient_checkpointing,
        ema=settings.ema_decay is not None,
    )
