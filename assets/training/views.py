"""Augmented views of the training images, as the image tower takes them. What is learned from them is the stages' concern.

Shapes: B images of a batch, R side as trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assets.clip.model import Clip, image_normalization, image_size
from assets.training.augmentation import apply_views, draw_views, stored_size
from assets.training.data import prefetched, training_batches
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
    size = image_size(model)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in image_normalization(model))
    kept: dict[int, np.ndarray] = {}

    def batches(epoch: int, done: int) -> Iterator[Views]:
        order = generator_for(seed, epoch)
        reading = training_batches(
            path,
            "train",
            batch_size=batch_size,
            size=stored_size(size),
            generator=order,
            kept=kept,
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
