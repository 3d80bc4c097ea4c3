"""Stage two against open_clip's own training with its image tower locked, on the same pictures and captions, in one run.

    python -m tests.benchmarks.realign [--model ViT-L-14-336] [--batch 64] [--steps 4] [--rounds 2] [--device cuda] [--precision bf16]

open_clip (`open_clip_train.train.train_one_epoch` after `lock_image_tower`) is given pictures that are preprocessed and captions that are
tokenized, in memory; here the locked tower's embeddings are computed once before, at a pace that is printed too. Prints images/s from the
second step on, by the median step of both sides in turns; asserts nothing.
"""

from __future__ import annotations

from assets import machine

machine.tune_for_torch()  # before torch loads; for both sides

# ruff: noqa: E402
import argparse
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip_train.train import train_one_epoch
from PIL import Image

from assets.clip.device import resolve_device
from assets.clip.encoder import Encoder
from assets.clip.encoding import encode_images
from assets.clip.image_towers import image_tower_of
from assets.params import Guards, TextTower, Training, read_params
from assets.pictures.decoding import decode
from assets.text_tower.stage import _task
from assets.training.loop import fit
from assets.training.texts import ImageTexts

PARTS = (
    ("small", "bright", "old", "wooden", "happy", "round", "green", "quiet"),
    ("dog", "boat", "house", "tree", "cup", "bird", "train", "hat"),
)
FULL = "as seen on a long and sunny afternoon walk through the park by the river with all of our friends and their dogs "


def main() -> None:
    arguments = parse()
    logging.disable(logging.WARNING)
    device = resolve_device(arguments.device)
    count = arguments.batch * (arguments.steps + 1)
    pictures = [png(number) for number in range(arguments.batch)]
    model, _, preprocess = open_clip.create_model_and_transforms(arguments.model, load_weights=False, device=device, output_dict=True)
    model.visual.to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer(arguments.model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    encoder = Encoder(
        Path("of random weights"),
        device=device,
        precision=arguments.precision,
        batch_size=arguments.batch,
        loaded=(model.eval(), preprocess, tokenizer),
    )

    begun = time.perf_counter()
    embedded = encode_images(model, preprocess, iter(pictures), decode, **encoder.how)
    caching = len(pictures) / (time.perf_counter() - begun)
    size = image_tower_of(model).size
    print(f"{arguments.model} on {device}, {arguments.precision}, batch {arguments.batch}, random weights of {size} px")  # noqa: T201
    print(f"caching pass, once: {caching:.2f} images/s, decoding included")  # noqa: T201

    for name, length in (("whole context", FULL * 5), ("short captions", "")):
        captions = [f"a {PARTS[0][n % 8]} {PARTS[1][n // 8 % 8]} number {n} {length}" for n in range(count)]
        seconds: dict[str, list[float]] = {"open_clip": [], "onespace": []}
        for _ in range(arguments.rounds):  # in turns, for a machine's speed changes within minutes
            for side, train in (("open_clip", open_clip_s_own), ("onespace", realign)):
                model.load_state_dict(weights)
                seconds[side] += seconds_of_steps(
                    lambda tick, train=train, captions=captions: train(encoder, captions, pictures, embedded, arguments, tick)
                )
        rates = {side: arguments.batch / statistics.median(each) for side, each in seconds.items()}
        ratio = rates["onespace"] / rates["open_clip"]
        print(f"{name}: open_clip {rates['open_clip']:.2f}, onespace {rates['onespace']:.2f} images/s, ratio {ratio:.2f}")  # noqa: T201


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Stage two against open_clip's own training with a locked image tower.")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="timed ones, after one that is not")
    parser.add_argument("--rounds", type=int, default=2, help="of each side")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    return parser.parse_args()


def seconds_of_steps(train: Callable[[Callable[[], None]], None]) -> list[float]:
    """From each call of `tick`, which `train` makes once a step, to the next, but for the first."""
    ticks: list[float] = []

    def tick() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ticks.append(time.perf_counter())

    train(tick)
    return np.diff(ticks[1:]).tolist()


def open_clip_s_own(
    encoder: Encoder,
    captions: list[str],
    pictures: list[bytes],
    _: np.ndarray,
    arguments: argparse.Namespace,
    tick: Callable[[], None],
) -> None:
    """`--lock-image` with its own optimiser groups (open_clip_train.main): matrices decay, the rest does not."""
    model = encoder.model
    model.requires_grad_(True)
    model.lock_image_tower(unlocked_groups=0, freeze_bn_stats=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
            {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": 0.01},
        ],
        lr=1e-5,
    )
    pixels = torch.stack([encoder.preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])
    tokens = encoder.tokenizer(captions)
    clip_loss = open_clip.ClipLoss()

    class Loader(list[tuple[torch.Tensor, torch.Tensor]]):
        num_batches, num_samples = len(tokens) // len(pixels) + 1, len(tokens)

    loader = Loader((pixels, tokens[start : start + len(pixels)]) for start in range(0, len(tokens), len(pixels)))
    loader.append(loader[0])  # one step more: its start ends the last that is timed

    def loss(**outputs: Any) -> Any:
        tick()
        return clip_loss(**outputs)

    settings = SimpleNamespace(
        device=encoder.device,
        precision="fp32" if arguments.precision == "fp32" else "amp_bf16",
        batch_size=arguments.batch,
        accum_freq=1,
        grad_clip_norm=1.0,
        log_every_n_steps=10**9,
        distill=False,
        skip_scheduler=True,
        horovod=False,
        distributed=False,
        local_rank=0,
        rank=0,
        world_size=1,
        log_local=False,
        wandb=False,
    )
    data = {"train": SimpleNamespace(set_epoch=lambda epoch: None, dataloader=loader)}
    train_one_epoch(model, data, loss, 0, optimizer, None, None, None, settings)


def realign(
    encoder: Encoder,
    captions: list[str],
    pictures: list[bytes],
    embedded: np.ndarray,
    arguments: argparse.Namespace,
    tick: Callable[[], None],
) -> None:
    count = len(captions) + arguments.batch  # one step more, as above
    vocabulary = [*captions, *captions[: arguments.batch]]
    texts = ImageTexts(vocabulary, np.arange(count)[:, None], np.ones(count, np.int64), np.arange(count))
    params, _ = read_params()
    unguarded = Guards.model_validate(dict.fromkeys(Guards.model_fields))
    written = params.text_tower.model_dump() | {
        "trains": "all",
        "steps": 1,
        "epochs": 1,
        "max_batch_share": 1.0,
        "batch_size": arguments.batch,
        "lr": 1e-5,
        "device": encoder.device,
    }
    written |= {"precision": arguments.precision, "guards": unguarded.model_dump(), "views": 1}
    settings = TextTower.model_validate(written)
    repeated = embedded[np.arange(count) % len(pictures)]
    task = _task(encoder, repeated, None, texts, None, lambda: {"search": None}, settings, compile_tower=False)

    def loss(batch: Any) -> torch.Tensor:
        tick()
        return task.loss(batch)

    with tempfile.TemporaryDirectory() as state:
        fit(replace(task, loss=loss), settings, Training(processes=1, compile=False, checkpoint_minutes=1e9), Path(state))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    fields = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(fields).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
