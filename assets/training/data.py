"""Training pictures streamed from the curated table: shuffled through a bounded pool, decoded in threads, memory independent of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from assets.clip.decoding import decode
from assets.clip.encoding import ahead
from assets.clip.pictures import pictures, row_groups, split_mask

SHUFFLE_POOL = 16384  # encoded pictures held while shuffling
POOL_BYTES = 1 << 30  # of them all: big photographs are fewer
KEPT_BYTES = 1 << 30  # of decoded pictures kept from one epoch to the next


def training_batches(
    path: Path, split: str, *, batch_size: int, size: int, generator: torch.Generator, kept: dict[int, np.ndarray], skip: int
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """One epoch: (row numbers within the split int64 [B], pixels uint8 [B, 3, size, size]), full batches only.

    A split smaller than one batch is one batch. The order comes from `generator` alone; the first `skip` batches of it are left out,
    undecoded. `kept`, empty at first and the same for every
    epoch of a run, holds decoded pictures by row number as far as KEPT_BYTES go, so that they are decoded once.
    """

    def decoded(item: tuple[int, bytes]) -> tuple[int, np.ndarray]:
        row, data = item
        if (pixels := kept.get(row)) is None:
            pixels = _pixels(data, size)
            if (len(kept) + 1) * pixels.nbytes <= KEPT_BYTES:
                kept[row] = pixels
        return row, pixels

    order = itertools.islice(_shuffled(path, split, generator), skip * batch_size, None)
    pixels = ahead(decoded, order, depth=2 * batch_size)
    first = skip == 0
    while batch := list(itertools.islice(pixels, batch_size)):
        if len(batch) < batch_size and not first:
            return
        first = False
        rows, pictures = zip(*batch, strict=True)
        yield np.array(rows), torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def batches_per_epoch(rows: int, batch_size: int) -> int:
    return max(1, rows // batch_size)


def _shuffled(path: Path, split: str, generator: torch.Generator) -> Iterator[tuple[int, bytes]]:
    """Row groups in random order, their rows through a pool from which random ones leave when it is full."""
    with pq.ParquetFile(path) as file:
        groups = row_groups(file, split)
        counts = [split_mask(file, group, split).true_count for group in groups]
        offsets = dict(zip(groups, np.concatenate([[0], np.cumsum(counts)[:-1]]).tolist() if groups else [], strict=True))
        pool: list[tuple[int, bytes]] = []
        held = 0
        for chosen in torch.randperm(len(groups), generator=generator).tolist():
            group = groups[chosen]
            for within, data in pictures(file, group, split):
                pool.append((offsets[group] + within, data))
                held += len(data)
                while len(pool) > SHUFFLE_POOL or held > POOL_BYTES:
                    leaving = int(torch.randint(len(pool), (), generator=generator))
                    pool[leaving], pool[-1] = pool[-1], pool[leaving]
                    held -= len(pool[-1][1])
                    yield pool.pop()
        for position in torch.randperm(len(pool), generator=generator).tolist():
            yield pool[position]


def _pixels(data: bytes, size: int) -> np.ndarray:
    return np.asarray(decode(data).resize((size, size), Image.Resampling.BICUBIC))
