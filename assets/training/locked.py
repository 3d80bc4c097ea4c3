"""Embeddings of a locked tower, computed once and kept on disk for every run that needs them. What uses them is the stages' concern.

Files `.cache/embeddings/<what>-<key>.npy`, the key a hash of all that determines them, code included; the last used ones stay.
Shapes: N images, T texts, V views of each image, d embedding.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip.decoding import decode
from assets.clip.device import autocast
from assets.clip.encoding import ahead, embedding_size, encode_images, encode_texts
from assets.clip.model import Clip, Preprocess, Tokenizer, image_normalization, image_size
from assets.clip.pictures import read_images, split_mask
from assets.progress import track
from assets.training.augmentation import augment, stored_size
from assets.training.data import resized
from assets.training.distributed import first_before_others
from assets.training.randomness import generator_for

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1]
FOLDER = artifacts.WORK / "embeddings"
FILES_KEPT = 12  # the last used; a run of all stages uses seven
UNTOUCHED_NS = 24 * 3600 * 10**9
BATCHES_A_CHUNK = 256  # written together, so that memory does not grow with N


def image_embeddings(
    model: Clip, preprocess: Preprocess, path: Path, split: str, *, inputs: dict[str, str], batch_size: int, device: str, precision: str
) -> np.ndarray:
    """float32 [N, d], unit norm, mapped from disk: the pictures of a split of the curated table `path`, in its order.

    `inputs`: hashes by name of what the caller read, the model and the table at least.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "precision": precision}
    total = _rows(path, split)

    def chunks() -> Iterator[np.ndarray]:
        images = read_images(path, split)
        for size in _chunk_sizes(total, batch_size):
            yield encode_images(model, preprocess, itertools.islice(images, size), total=size, **options)

    return _kept("images", {"split": split, **inputs, **options}, (total, embedding_size(model)), chunks)


def view_embeddings(
    model: Clip,
    path: Path,
    *,
    views: int,
    augmentation: dict[str, Any],
    seed: int,
    inputs: dict[str, str],
    batch_size: int,
    device: str,
    precision: str,
) -> np.ndarray:
    """float32 [N·V, d], unit norm, mapped from disk: V augmented views of each training picture, row n·V + v being view v of picture n."""
    total, size = _rows(path, "train"), image_size(model)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in image_normalization(model))

    def chunks() -> Iterator[np.ndarray]:
        images = track(read_images(path, "train"), total, "encoding views", "images")
        pixels = ahead(lambda data: resized(decode(data), stored_size(size)), images, depth=2 * batch_size)
        for number in itertools.count():
            batch = list(itertools.islice(pixels, batch_size))
            if not batch:
                return
            stored = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).to(device)
            seen = []
            for view in range(views):
                shown = augment(stored, size, **augmentation, generator=generator_for(seed, view, number))
                with torch.inference_mode(), autocast(device, precision):
                    embedded = model.encode_image(((shown - mean) / std).contiguous(memory_format=torch.channels_last))
                seen.append(normalize(embedded.float(), dim=1).cpu().numpy())
            yield np.stack(seen, axis=1).reshape(len(batch) * views, -1)

    determined_by = {
        **inputs,
        "views": views,
        "augmentation": augmentation,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
    }
    return _kept("views", determined_by, (total * views, embedding_size(model)), chunks)


def text_embeddings(
    model: Clip, tokenizer: Tokenizer, texts: list[str], *, inputs: dict[str, str], batch_size: int, device: str, precision: str
) -> np.ndarray:
    """float32 [T, d], unit norm, mapped from disk, in the order of `texts`. `inputs`: the hash of the model at least."""
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "precision": precision}

    def chunks() -> Iterator[np.ndarray]:
        yield encode_texts(model, tokenizer, texts, **options)

    spoken = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    return _kept("texts", {"texts": spoken, **inputs, **options}, (len(texts), embedding_size(model)), chunks)


def _kept(what: str, determined_by: dict[str, Any], shape: tuple[int, int], chunks: Callable[[], Iterator[np.ndarray]]) -> np.ndarray:
    """The array [shape], read from the file of that key, or written there from `chunks` of its rows first."""
    if not shape[0]:
        return np.zeros(shape, np.float32)  # nothing can be mapped from an empty file
    code = [artifacts.sha256_of(ASSETS / name) for name in ("clip", "training/locked.py", "training/augmentation.py")]
    kind = str(determined_by["device"]).partition(":")[0]  # whichever cuda device it was
    key = hashlib.sha256(json.dumps([determined_by | {"device": kind}, code], sort_keys=True).encode()).hexdigest()[:32]
    file = FOLDER / f"{what}-{key}.npy"
    with first_before_others():
        if file.is_file():
            logger.info("%s: %d embeddings of the locked tower from %s", what, shape[0], file)
        else:
            with artifacts.replacing(file) as temporary:
                written = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
                start = 0
                for chunk in chunks():
                    written[start : start + len(chunk)] = chunk
                    start += len(chunk)
                assert start == shape[0], (start, shape)
                written.flush()
                del written
        os.utime(file)  # used just now
        _forget_all_but_the_last_used()
    found = np.load(file, mmap_mode="c")  # writable in memory alone, as torch wants it
    assert found.shape == shape, (found.shape, shape)
    return found


def _forget_all_but_the_last_used() -> None:
    def used(file: Path) -> int:
        try:
            return file.stat().st_mtime_ns
        except FileNotFoundError:  # another stage, which runs beside, has removed it
            return 0

    for old in sorted(FOLDER.glob("*.npy"), key=used)[:-FILES_KEPT]:
        old.unlink(missing_ok=True)
    for broken in FOLDER.glob(".*.tmp"):  # what a killed run had begun
        if time.time_ns() - used(broken) > UNTOUCHED_NS:
            broken.unlink(missing_ok=True)


def _rows(path: Path, split: str) -> int:
    with pq.ParquetFile(path) as file:
        return sum(split_mask(file, group, split).true_count for group in range(file.num_row_groups))


def _chunk_sizes(total: int, batch_size: int) -> list[int]:
    chunk = batch_size * BATCHES_A_CHUNK
    return [min(chunk, total - start) for start in range(0, total, chunk)]
