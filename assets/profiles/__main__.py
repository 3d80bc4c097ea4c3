"""python -m assets.profiles: every profile validates, its model is built without weights, and what training it costs is told.

Tokenizers, which may need a hub, are not built.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

import open_clip
import torch

from assets.base_clip.demo import CONTEXT_LENGTH, untrained_clip
from assets.clip.image_towers import image_tower_of
from assets.clip.model import Clip
from assets.clip.text_projection import project, projection_width
from assets.clip.text_towers import HuggingFace, text_tower_of
from assets.clip.trainable import unlock
from assets.errors import UserError
from assets.params import BaseClip, DemoClip, ImageTower, TextTower, read_params
from assets.profiles.cost import Cost, training_cost

FOLDER = Path(__file__).parent
COUNTED = 2  # inputs of the forward pass that is counted
ASSUMED_FLOPS = 100e12  # a second, of the device whose seconds are told


def main() -> int:
    print("GB as counted in assets/profiles/cost.py; seconds a step at 100 TFLOP/s achieved; captions at the tower's whole context")
    columns = ["profile", "stage", "trains", "trained M", "locked M", "state GB", "activations GB", "TFLOP a step", "s a step"]
    print("".join(name.rjust(15) for name in columns))
    failed = False
    for path in sorted(FOLDER.glob("*.yaml")):
        try:
            params, _ = read_params(path)
            model, context_length = build_model(params.base_clip)
            for stage, settings, cost in (
                ("image_tower", params.image_tower, image_cost(model, params.image_tower)),
                ("text_tower", params.text_tower, text_cost(model, context_length, params.text_tower)),
            ):
                print(row(path.stem, stage, settings.trains, cost))
        except UserError as error:
            print(f"{path.stem}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


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
    """Adapters, where they train, stay on the tower: a text tower's cost is told with theirs among what is locked."""
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
        raise UserError("text_tower.trains: a Hugging Face tower asks for its inputs' values, so its cost is told for projection alone.")
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


def row(profile: str, stage: str, trains: str, cost: Cost) -> str:
    numbers = [
        f"{cost.trained / 1e6:.1f}",
        f"{cost.locked / 1e6:.1f}",
        f"{cost.state_bytes / 1e9:.2f}",
        f"{cost.activation_bytes / 1e9:.2f}",
        f"{cost.step_flops / 1e12:.2f}",
        f"{cost.step_flops / ASSUMED_FLOPS:.3f}",
    ]
    return "".join(field.rjust(15) for field in (profile, stage, trains, *numbers))


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that there are no weights
    sys.exit(main())
