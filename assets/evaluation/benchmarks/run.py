"""Which benchmarks are there, and what one model scores on them, also by Table 1's columns. Layouts and protocols are the families'."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from assets.errors import UserError
from assets.evaluation.benchmarks import registry
from assets.evaluation.benchmarks.imagenet import Labelled, imagenet_class_embeddings, read_imagenet_train
from assets.evaluation.benchmarks.registry import BENCHMARKS
from assets.evaluation.benchmarks.tools import Encodes, Tools
from assets.table_1 import COLUMNS

logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """What lies in the benchmarks' folder, read and checked. `data`: what each benchmark's reader gave, in the order of the registry.

    `skipped`: why, for each that is not there. `incomplete`: how much there is of a set that is smaller than its makers'.
    """

    data: dict[str, Any]
    imagenet_train: Labelled | None
    skipped: dict[str, str]
    incomplete: dict[str, str]


def find_benchmarks(root: Path) -> Found:
    """Read the layouts, open no picture. A benchmark whose folder is missing or empty is skipped; a wrong layout raises UserError
    that names the first missing file."""
    found = Found({}, None, {}, {})
    for benchmark in BENCHMARKS:
        if not _is_there(root / benchmark.name):
            found.skipped[benchmark.name] = _absent(benchmark.source, benchmark.layout)
            continue
        data = _checked(benchmark.read, root / benchmark.name, benchmark.layout, benchmark.source)
        found.data[benchmark.name] = data
        _count(found, benchmark.name, len(data.pictures), benchmark.images)
    train = root / registry.IMAGENET_TRAIN
    if _is_there(train):
        data = _checked(read_imagenet_train, train, registry.IMAGENET_TRAIN_LAYOUT, registry.IMAGENET_TRAIN_SOURCE)
        found = found._replace(imagenet_train=data)
        _count(found, registry.IMAGENET_TRAIN, len(data.pictures), registry.IMAGENET_TRAIN_IMAGES)
    else:
        found.skipped[registry.IMAGENET_TRAIN] = _absent(registry.IMAGENET_TRAIN_SOURCE, registry.IMAGENET_TRAIN_LAYOUT)
    _log(root, found)
    return found


def measure_benchmarks(found: Found, encoder: Encodes, *, knn_k: int, knn_temperature: float) -> dict[str, Any]:
    """What data/evaluation/<recipe>/benchmarks.json has: `benchmarks` (name: measure: percent), `skipped`, `incomplete`, `table_1`.

    Of a benchmark only its embeddings are in memory, and only until it is measured; those of ImageNet's training images (2.6 GB at d = 512)
    until the last benchmark that needs them. Names and prompts of ImageNet's classes are encoded once for all its variants.
    """

    def imagenet_train(train: Labelled) -> tuple[np.ndarray, np.ndarray]:
        return encoder.images(train.pictures), train.classes

    tools = Tools(
        encoder,
        knn_k,
        knn_temperature,
        imagenet_classes=functools.cache(lambda: imagenet_class_embeddings(encoder)),
        imagenet_train=None if found.imagenet_train is None else functools.cache(functools.partial(imagenet_train, found.imagenet_train)),
    )
    scores: dict[str, dict[str, float]] = {}
    for benchmark in BENCHMARKS:
        if benchmark.name in found.data:
            logger.info("benchmark %s: %d pictures", benchmark.name, len(found.data[benchmark.name].pictures))
            scores[benchmark.name] = benchmark.measure(found.data[benchmark.name], tools)
    return {"benchmarks": scores, "skipped": found.skipped, "incomplete": found.incomplete, "table_1": table_1(scores)}


def table_1(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The fourteen columns of Table 1 by family, percent, null where a benchmark is missing; their mean where none is."""
    table: dict[str, dict[str, float | None]] = {}
    for column in COLUMNS:
        table.setdefault(column.family, {})[column.key] = scores.get(column.benchmark, {}).get(column.measure)
    values = [value for columns in table.values() for value in columns.values()]
    known = [value for value in values if value is not None]
    return table | {"average": round(float(np.mean(known)), 4) if len(known) == len(values) else None}


def _is_there(folder: Path) -> bool:
    return folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())


def _absent(source: str, layout: str) -> str:
    return f"not there; official source: {source}; layout: {layout}"


def _checked(read: Any, folder: Path, layout: str, source: str) -> Any:
    try:
        return read(folder)
    except UserError as error:
        raise UserError(f"benchmark {folder.name}: {error} Its layout in {folder}: {layout}. Official source: {source}.") from None


def _count(found: Found, name: str, images: int, complete: int) -> None:
    if images != complete:
        found.incomplete[name] = f"{images} of {complete} images"


def _log(root: Path, found: Found) -> None:
    if not found.data:
        logger.info("no benchmark is in %s; `python -m assets.evaluation.benchmarks` prints what belongs there", root)
        return
    for name, why in found.skipped.items():
        logger.info("benchmark %s skipped: %s", name, why)
    for name, what in found.incomplete.items():
        logger.warning("benchmark %s has %s: do not compare its numbers with published ones", name, what)
    known = {benchmark.name for benchmark in BENCHMARKS} | {registry.IMAGENET_TRAIN}
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name not in known:
            logger.warning("%s is not a known benchmark; known are %s", folder, ", ".join(sorted(known)))
