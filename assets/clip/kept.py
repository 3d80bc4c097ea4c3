"""Embeddings of locked towers, computed once and kept on disk for every stage that needs them. The caller decides what they depend on.

Files `.cache/embeddings/<what>-<key>.npy`, the key a hash of all that determines them, code included; the last used ones stay.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from assets import artifacts

logger = logging.getLogger(__name__)

FOLDER = artifacts.WORK / "embeddings"
BYTES_KEPT = 4 << 30  # of the last used
UNTOUCHED_NS = 24 * 3600 * 10**9


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
    hashes = [artifacts.sha256_of(path) for path in code]
    kind = str(determined_by["device"]).partition(":")[0]  # whichever cuda device it was
    key = hashlib.sha256(json.dumps([determined_by | {"device": kind}, hashes], sort_keys=True).encode()).hexdigest()[:32]
    file = FOLDER / f"{what}-{key}.npy"
    found = _read(file)
    if found is not None:
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
        found = _read(file)
    assert found is not None and found.shape == shape, (found, shape)
    _forget_all_but_the_last_used()
    return found


def _read(file: Path) -> np.ndarray | None:
    """The embeddings of a file, which counts as used just now; None where it is not there, or another stage removes it meanwhile."""
    try:
        os.utime(file)
        return np.load(file, mmap_mode="c")  # writable in memory alone, as torch wants it
    except FileNotFoundError:
        return None


def _forget_all_but_the_last_used() -> None:
    def used(file: Path) -> tuple[int, int]:
        try:
            return file.stat().st_mtime_ns, file.stat().st_size
        except FileNotFoundError:  # another stage, which runs beside, has removed it
            return 0, 0

    found = sorted(((*used(file), file) for file in FOLDER.glob("*.npy")), reverse=True)
    room = BYTES_KEPT
    for number, (_, size, file) in enumerate(found):
        room -= size
        if room < 0 and number:  # the newest stays, whatever its size
            file.unlink(missing_ok=True)
    for broken in FOLDER.glob(".*.tmp"):  # what a killed run had begun
        if time.time_ns() - used(broken)[0] > UNTOUCHED_NS:
            broken.unlink(missing_ok=True)
