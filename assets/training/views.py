"""Augmented views of the training images, as the image tower takes them. What a tower learns from them is the stages' concern.

Shapes: B images of a batch, R side as trained; N training images, V views of each, d embedding.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from assets.clip.device import autocast
from assets.clip.encoder import Encoder
from assets.clip.encoding import ahead
from assets.clip.image_towers import image_tower_of
from assets.clip.model import Clip
from assets.imports import imported_files
from assets.kept import kept_rows
from assets.pictures.split import Split
from assets.progress import track
from assets.training.augmentation import apply_views, augment, draw_views, stored_size
from assets.training.data import prefetched, resized, training_batches
from assets.training.distributed import own_rows, world_size
from assets.training.randomness import generator_for

BATCHES_AHEAD = 2

Views = tuple[np.ndarray, torch.Tensor]  # row numbers within the training split [B], normalised pixels float32 [B, 3, R, R]


def training_views(
    path: Path,
    model: Clip,
    *,
    batch_size: int,
    augmentation: dict[str, Any],
    seed: int,
    device: str,
    classes: np.ndarray | None,
    images_per_class: int | None,
) -> Callable[[int, int], Iterator[Views]]:
    """batches(epoch, done): the batches of that epoch from the one after the first `done`; the same epoch always gives the same.

    Pixels are normalised as `model` wants them, channels last. `augmentation`: the settings of `draw_views`; `classes` and
    `images_per_class` as in `training_batches`. In several processes each gets its `own_rows`, seen as one process would see them.
    """
    tower = image_tower_of(model)
    size = tower.size
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in tower.normalization)
    decoded: dict[int, np.ndarray] = {}

    def batches(epoch: int, done: int) -> Iterator[Views]:
        order = generator_for(seed, epoch)
        reading = training_batches(
            path,
            "train",
            batch_size=batch_size,
            size=stored_size(size),
            generator=order,
            kept=decoded,
            skip=done,
            classes=classes,
            images_per_class=images_per_class,
        )
        for step, (rows, pixels) in enumerate(prefetched(reading, depth=BATCHES_AHEAD), done):
            count = len(rows) * world_size()
            drawn = draw_views(count, stored_size(size) / size, **augmentation, generator=generator_for(seed, epoch, step))
            own = own_rows(count)
            views = apply_views(pixels.to(device), size, (drawn[0][own], drawn[1][own], drawn[2][own]))
            yield rows, ((views - mean) / std).contiguous(memory_format=torch.channels_last)

    return batches


def view_embeddings(encoder: Encoder, pictures: Split, *, views: int, augmentation: dict[str, Any], seed: int) -> np.ndarray:
    """float32 [N·V, d], unit norm, mapped from disk: V augmented views of each picture, row n·V + v being view v of picture n.

    The encoder's model is as its directory holds it, and its image tower is locked, so a view is encoded once.
    """
    model, device = encoder.model, encoder.device
    tower, total = image_tower_of(model), len(pictures)
    size = tower.size
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in tower.normalization)

    def compute(_: Sequence[int]) -> Iterator[np.ndarray]:
        images = track(pictures.items(), total, "encoding views", "images")
        pixels = ahead(lambda item: resized(pictures.open(item), stored_size(size)), images, depth=2 * encoder.batch_size)
        for number in itertools.count():
            batch = list(itertools.islice(pixels, encoder.batch_size))
            if not batch:
                return
            stored = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).to(device)
            seen = []
            for view in range(views):
                shown = augment(stored, size, **augmentation, generator=generator_for(seed, view, number))
                with torch.inference_mode(), autocast(device, encoder.precision):
                    embedded = model.encode_image(((shown - mean) / std).contiguous(memory_format=torch.channels_last))
                seen.append(normalize(embedded.float(), dim=1).cpu().numpy())
            yield np.stack(seen, axis=1).reshape(len(batch) * views, -1)

    determined_by = {
        "tower": encoder.tower_sha256("image"),
        "views": views,
        "augmentation": augmentation,
        "seed": seed,
        **encoder.how,
    }
    # a view depends on the batch that it is drawn in: all are kept, or none
    everything = hashlib.sha256(b"".join(pictures.digests())).digest()
    digests = [hashlib.sha256(everything + row.to_bytes(8)).digest() for row in range(total * views)]
    return kept_rows("views", determined_by, imported_files(__name__), digests, encoder.dimension, compute)
