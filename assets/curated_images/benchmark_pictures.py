"""The pictures of public benchmarks that lie on this machine, looked at as the source's are: none of them is to be trained on."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from assets.curated_images.copies import Looks
from assets.curated_images.fingerprint import BYTES, VIEWS
from assets.curated_images.inspection import Inspector, Usable, inspect_all
from assets.curated_images.thumbnails import VALUES
from assets.engine import Engine
from assets.progress import track

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png")  # the benchmarks that evaluation knows have no others
READ_AT_ONCE = 64


def picture_files(root: Path) -> list[Path]:
    """Every picture file below `root`, links followed, in order of name."""
    found = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    return sorted(file for file in found if file.name.lower().endswith(SUFFIXES) and not file.name.startswith("."))


def look_at(root: Path, inspector: Inspector, engine: Engine) -> tuple[list[str], Looks]:
    """Names below `root` and looks of those that open; evaluation reports those that do not."""
    files = picture_files(root)
    names, prints, thumbnails = [], [], []
    for file, found in track(_looked_at(files, inspector, engine), total=len(files), what="benchmarks", unit="images"):
        if isinstance(found, Usable):
            names.append(file.relative_to(root).as_posix())
            prints.append(found.fingerprint)
            thumbnails.append(found.thumbnail)
    if names:
        logger.info("%d pictures of benchmarks in %s are not to be trained on", len(names), root)
    looks = Looks(
        np.frombuffer(b"".join(prints), np.uint8).reshape(-1, VIEWS, BYTES),
        np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, VALUES),
    )
    return names, looks


def _looked_at(files: list[Path], inspector: Inspector, engine: Engine) -> Iterator[tuple[Path, object]]:
    batches = [files[start : start + READ_AT_ONCE] for start in range(0, len(files), READ_AT_ONCE)]
    images = ([file.read_bytes() for file in some] for some in batches)
    with_digests = ((some, [hashlib.sha256(image).digest() for image in some]) for some in images)
    for some, found in zip(batches, inspect_all(with_digests, inspector, engine), strict=True):
        yield from zip(some, found, strict=True)
