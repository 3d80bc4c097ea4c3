"""Training pictures streamed from the curated table: shuffled through a bounded pool, decoded in threads, memory independent of rows."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from assets.clip.encoding import ahead
from assets.pictures.decoding import decode
from assets.pictures.table import groups_of
from assets.training.distributed import own_rows, world_size

SHUFFLE_POOL = 8192  # encoded pictures held while shuffling
POOL_BYTES = 1 << 30  # of them all: big photographs are fewer
KEPT_BYTES = 128 << 20  # of decoded pictures kept from one epoch to the next: a small collection is decoded once

T = TypeVar("T")
Item = tuple[int, bytes]  # row number within the split, encoded picture


def training_batches(
    path: Path,
    split: str,
    *,
    batch_size: int,
    size: int,
    generator: torch.Generator,
    kept: dict[int, np.ndarray],
    skip: int,
    classes: np.ndarray | None,
    images_per_class: int | None,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """One epoch: (row numbers within the split int64 [B], pixels uint8 [B, 3, size, size]), full batches only.

    In several processes each gets, and decodes, its `own_rows` of the same batches. A split smaller than one batch is one batch. The
    order comes from `generator` alone; the first `skip` batches of it are left out, undecoded. `kept`, empty at first and the same for
    every epoch of a run, holds decoded pictures by row number as far as KEPT_BYTES go, so that they are decoded once.

    With `images_per_class`, that number of pictures of one class come together, and every class of the pool comes before any comes a
    second time; `classes` [N] is the class of each row. Every picture still comes once per epoch, so a class with fewer pictures gives
    what it has, and the last batches hold the classes with the most pictures.
    """

    def decoded(item: Item) -> tuple[int, np.ndarray]:
        row, data = item
        if (pixels := kept.get(row)) is None:
            pixels = resized(decode(data), size)
            if (len(kept) + 1) * pixels.nbytes <= KEPT_BYTES:
                kept[row] = pixels
        return row, pixels

    pool: Pool | ClassPool = (
        ClassPool(classes, images_per_class, generator) if classes is not None and images_per_class else Pool(generator)
    )
    order = itertools.islice(_shuffled(path, split, generator, pool), skip * batch_size, None)
    own = itertools.chain.from_iterable(batch[own_rows(len(batch))] for batch in _full_batches(order, batch_size, first=skip == 0))
    each = batch_size // world_size()
    pixels = ahead(decoded, own, depth=2 * each)
    while batch := list(itertools.islice(pixels, each)):
        rows, pictures = zip(*batch, strict=True)
        yield np.array(rows), torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def _full_batches(items: Iterable[T], size: int, *, first: bool) -> Iterator[list[T]]:
    """Of an epoch from its beginning (`first`), the first batch counts even if there is no full one."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        if len(batch) == size or first:
            yield batch
        first = False


def prefetched(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items, made in a thread up to `depth` ahead: reading and stacking do not wait for the model, nor the model for them."""
    end = object()
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = deque(thread.submit(next, iterator, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, iterator, end))
            yield item  # type: ignore[misc]


class Pool:
    """Encoded pictures from which random ones leave."""

    def __init__(self, generator: torch.Generator) -> None:
        self.items: list[Item] = []
        self.generator = generator

    def __len__(self) -> int:
        return len(self.items)

    def add(self, item: Item) -> None:
        self.items.append(item)

    def leave(self) -> list[Item]:
        leaving = int(torch.randint(len(self.items), (), generator=self.generator))
        self.items[leaving], self.items[-1] = self.items[-1], self.items[leaving]
        return [self.items.pop()]

    def rest(self) -> Iterator[Item]:
        for position in torch.randperm(len(self.items), generator=self.generator).tolist():
            yield self.items[position]


class ClassPool:
    """Encoded pictures that leave by class: `count` random ones of a random class, every class before any a second time."""

    def __init__(self, classes: np.ndarray, count: int, generator: torch.Generator) -> None:
        self.of_class: dict[int, list[Item]] = {}
        self.turns: list[int] = []  # classes still to come before any comes again
        self.classes, self.count, self.generator = classes, count, generator
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def add(self, item: Item) -> None:
        self.of_class.setdefault(int(self.classes[item[0]]), []).append(item)
        self.size += 1

    def leave(self) -> list[Item]:
        while not self.turns or self.turns[-1] not in self.of_class:
            if self.turns:
                self.turns.pop()  # its last picture has left
            else:
                names = list(self.of_class)
                self.turns = [names[place] for place in torch.randperm(len(names), generator=self.generator).tolist()]
        name = self.turns.pop()
        own = self.of_class.pop(name)
        order = torch.randperm(len(own), generator=self.generator).tolist()
        if len(own) > self.count:
            self.of_class[name] = [own[place] for place in order[self.count :]]
        leaving = [own[place] for place in order[: self.count]]
        self.size -= len(leaving)
        return leaving

    def rest(self) -> Iterator[Item]:
        while self.size:
            yield from self.leave()


def _shuffled(path: Path, split: str, generator: torch.Generator, pool: Pool | ClassPool) -> Iterator[Item]:
    """Row groups in random order, their rows through a pool from which random ones leave when it is full."""
    groups = groups_of(path, split)
    held = 0
    for chosen in torch.randperm(len(groups), generator=generator).tolist():
        group = groups[chosen]
        for row, data in enumerate(group.images(), start=group.start):
            pool.add((row, data))
            held += len(data)
            while len(pool) > SHUFFLE_POOL or held > POOL_BYTES:
                leaving = pool.leave()
                held -= sum(len(encoded) for _, encoded in leaving)
                yield from leaving
    yield from pool.rest()


def resized(picture: Image.Image, size: int) -> np.ndarray:
    """uint8 [size, size, 3], squashed."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
