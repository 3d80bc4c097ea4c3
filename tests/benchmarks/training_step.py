"""A step of stage one, with all that a run has, against the least a step can be: `python -m tests.benchmarks.training_step`.

The least: forward, backward and AdamW of the same ViT-B-32 on tensors that are already there. Prints the ratio of images/s, aim
0.95 or more, of an epoch that decodes its pictures and of one that has them decoded; each is of the median step, and both sides
have the machine's settings of `python -m assets`. Asserts nothing; wants an idle machine.
"""

from __future__ import annotations

from assets import artifacts, machine

machine.tune_for_torch()  # before torch loads

# ruff: noqa: E402
import argparse
import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from assets.clip.device import autocast, resolve_device
from assets.clip.model import CONFIG, load_clip, save_weights
from assets.image_tower.stage import train_image_tower
from assets.params import ImageTower, Training, read_params
from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.table import writing_rows
from assets.recipes import BASE, Recipe
from assets.training import loop
from assets.training.run import Run

VISION = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}  # ViT-B-32
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}  # no part of the step
PICTURE = (320, 240)  # pixels
WARM_UP = 2  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    asked = parser.parse_args()
    params, _ = read_params()
    settings = params.image_tower.model_copy(
        update={
            "steps": 1,
            "epochs": 2,
            "max_batch_share": 1.0,
            "batch_size": asked.batch_size,
            "device": asked.device,
            "precision": asked.precision,
            "lr": 1e-6,
            "trains": "all",
        }
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _write_pictures(asked.batch_size * asked.steps, asked.batch_size)
        _write_model()
        before = _least(settings, asked.steps)
        decoding, decoded = _stage(settings, params.training, asked.steps)
        after = _least(settings, asked.steps)
    least = settings.batch_size / statistics.median([*before, *after])
    print(f"least: {least:.2f} images/s, steps of {min(*before, *after):.2f} to {max(*before, *after):.2f} s")  # noqa: T201
    print(f"stage one, decoding: {decoding:.2f} images/s, ratio {decoding / least:.3f}")  # noqa: T201
    print(f"stage one, decoded:  {decoded:.2f} images/s, ratio {decoded / least:.3f}")  # noqa: T201


def _stage(settings: ImageTower, training: Training, steps: int) -> list[float]:
    """images/s of each epoch's median step, from one step's end to the next one's."""
    ends: list[float] = []
    step = loop._step

    def timed(run: Run[Any]) -> None:
        step(run)
        _wait(run.device.type)
        ends.append(time.perf_counter())

    loop._step = timed  # type: ignore[assignment]
    try:
        train_image_tower(Recipe("measured", "image_tower", BASE, "of this benchmark", settings), training)
    finally:
        loop._step = step
    return [settings.batch_size / float(np.median(np.diff(ends[first : first + steps]))) for first in range(0, len(ends), steps)]


def _least(settings: ImageTower, steps: int) -> list[float]:
    """Seconds of each step."""
    device = resolve_device(settings.device)
    model, _, _ = load_clip(artifacts.model_dir(BASE), device)
    model.visual.train()
    optimizer = torch.optim.AdamW(model.visual.parameters(), lr=settings.lr, fused=True)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=settings.precision == "fp16")
    pixels = torch.randn(settings.batch_size, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(WARM_UP + steps):
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, settings.precision):
            loss = model.encode_image(pixels).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    return seconds[WARM_UP:]


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _write_pictures(train: int, validation: int) -> None:
    chance = np.random.default_rng(0)
    with writing_rows(artifacts.CURATED_IMAGES, CURATED_SCHEMA) as write:
        for number in range(train + validation):
            buffer = io.BytesIO()
            blocks = chance.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize(PICTURE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            write(
                {"id": f"{number:05}", "image": buffer.getvalue(), "label": f"{number % 16:02}", "class_name": f"class {number % 16}"}
                | {"captions": [], "source": "", "license": "", "attribution": "", "split": "train" if number < train else "validation"}
                | {"group": None, "width": PICTURE[0], "height": PICTURE[1], "sha256": ""}
            )


def _write_model() -> None:
    base: Path = artifacts.model_dir(BASE)
    base.mkdir(parents=True)
    torch.manual_seed(0)
    save_weights(open_clip.model.CLIP(embed_dim=512, vision_cfg=VISION, text_cfg=TEXT), base)
    statistics = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    card = {"recipe": BASE, "stage": "base_clip", "made_from": [], "params": {}, "inputs": {}, "validation": {}}
    artifacts.write_json(base / artifacts.MODEL_CARD, card)
    artifacts.write_json(
        base / CONFIG, {"model_cfg": {"embed_dim": 512, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": statistics}
    )


if __name__ == "__main__":
    main()
