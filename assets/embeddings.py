"""Embeddings of locked towers, computed once and kept on disk for every stage that needs them. What uses them is the stages' concern.

A tower is known by its weights and its model's settings, so recipes that share one share its embeddings. Files
`.cache/embeddings/<what>-<key>.npy`, the key a hash of all that determines them, code included; the last used ones stay.
Shapes: N images, T texts, d embedding, w width of the text tower.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch.nn.functional import normalize

from assets import artifacts
from assets.clip.encoding import embedding_size, encode_images, text_features
from assets.clip.model import CARD, WEIGHTS, Clip, Preprocess, Tokenizer
from assets.clip.pictures import read_images, split_mask
from assets.clip.text_projection import is_text_projection, project, projection_width, without_text_projection

logger = logging.getLogger(__name__)

BATCH_SIZE = 256  # of stages that have no setting for it; one for all, so that they find each other's files
FOLDER = artifacts.WORK / "embeddings"
FILES_KEPT = 16  # the last used; the demo uses twelve
UNTOUCHED_NS = 24 * 3600 * 10**9
BATCHES_A_CHUNK = 256  # written together, so that memory does not grow with N
ASSETS = Path(__file__).parent


def image_embeddings(
    directory: Path,
    model: Clip,
    preprocess: Preprocess,
    table: Path,
    split: str,
    *,
    table_sha256: str,
    batch_size: int,
    device: str,
    precision: str,
) -> np.ndarray:
    """float32 [N, d], unit norm, mapped from disk: the pictures of a split of the curated `table`, in its order.

    `model` and `preprocess` as `load_clip(directory)` gave them.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "precision": precision}
    total = rows_of_split(table, split)

    def chunks() -> Iterator[np.ndarray]:
        images = read_images(table, split)
        for size in _chunk_sizes(total, batch_size):
            yield encode_images(model, preprocess, itertools.islice(images, size), total=size, **options)

    determined_by = {"tower": tower_sha256(directory, "image"), "table": table_sha256, "split": split, **options}
    return kept("images", determined_by, [ASSETS / "clip"], (total, embedding_size(model)), chunks)


def text_embeddings(
    directory: Path, model: Clip, tokenizer: Tokenizer, texts: Sequence[str], *, batch_size: int, device: str, precision: str
) -> np.ndarray:
    """float32 [T, d], unit norm, in the order of `texts`. `model` and `tokenizer` as `load_clip(directory)` gave them."""
    if not texts:
        return np.zeros((0, embedding_size(model)), np.float32)
    features = locked_text_features(directory, model, tokenizer, texts, batch_size=batch_size, device=device, precision=precision)
    with torch.inference_mode():
        return normalize(project(model, torch.from_numpy(features).to(device)), dim=1).cpu().numpy()


def locked_text_features(
    directory: Path, model: Clip, tokenizer: Tokenizer, texts: Sequence[str], *, batch_size: int, device: str, precision: str
) -> np.ndarray:
    """float32 [T, w], mapped from disk: what the text tower's projection takes, in the order of `texts`."""
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "precision": precision}

    def chunks() -> Iterator[np.ndarray]:
        with without_text_projection(model):
            yield text_features(model, tokenizer, texts, **options).cpu().numpy()

    spoken = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
    determined_by = {"tower": tower_sha256(directory, "text"), "texts": spoken, **options}
    return kept("texts", determined_by, [ASSETS / "clip"], (len(texts), projection_width(model)), chunks)


def tower_sha256(directory: Path, tower: Literal["image", "text"]) -> str:
    """Of a tower's weights, the text tower's without its projection, and all settings of the model directory."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.iterdir() if path.name not in (WEIGHTS, CARD)):
        digest.update(f"{file.name}\0{artifacts.sha256_of(file)}\0".encode())
    file = (directory / WEIGHTS).resolve()
    digest.update(_weights_sha256(file, tower, file.stat().st_size, file.stat().st_mtime_ns).encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _weights_sha256(file: Path, tower: Literal["image", "text"], size: int, changed_ns: int) -> str:
    """A stage asks several times, of gigabytes; size and time of change are there to read again what was written anew."""
    digest = hashlib.sha256()
    with safe_open(file, framework="pt") as weights:
        for name in sorted(weights.keys()):
            of_neither = name in ("logit_scale", "logit_bias") or is_text_projection(name)
            if name.startswith("visual.") == (tower == "image") and not of_neither:
                tensor = weights.get_tensor(name)
                digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def kept(
    what: str,
    determined_by: dict[str, Any],
    code: Iterable[Path],
    shape: tuple[int, int],
    chunks: Callable[[], Iterator[np.ndarray]],
) -> np.ndarray:
    """float32 [shape], read from the file of that key, or written there from `chunks` of its rows first."""
    if not shape[0]:
        return np.zeros(shape, np.float32)  # nothing can be mapped from an empty file
    hashes = [artifacts.sha256_of(path) for path in (Path(__file__), *code)]
    kind = str(determined_by["device"]).partition(":")[0]  # whichever cuda device it was
    key = hashlib.sha256(json.dumps([determined_by | {"device": kind}, hashes], sort_keys=True).encode()).hexdigest()[:32]
    file = FOLDER / f"{what}-{key}.npy"
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
    found = np.load(file, mmap_mode="c")  # writable in memory alone, as torch wants it
    assert found.shape == shape, (found.shape, shape)
    os.utime(file)  # used just now
    _forget_all_but_the_last_used()
    return found


def rows_of_split(table: Path, split: str) -> int:
    with pq.ParquetFile(table) as file:
        return sum(split_mask(file, group, split).true_count for group in range(file.num_row_groups))


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


def _chunk_sizes(total: int, batch_size: int) -> list[int]:
    chunk = batch_size * BATCHES_A_CHUNK
    return [min(chunk, total - start) for start in range(0, total, chunk)]
