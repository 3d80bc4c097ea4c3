"""The stage curated_images: every source image ends in one of two tables, kept or rejected. Each rule is a module of this package.

The stage reads and decodes the source once, in order of id. Usable images wait on disk until the split of every image is known.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts, params
from assets.curated_images.inspection import inspect
from assets.curated_images.rejection import REJECTED_SCHEMA, Repetitions, too_small_classes
from assets.curated_images.split import split_images
from assets.errors import UserError
from assets.pictures.decoding import BadPicture
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA, SPLITS
from assets.pictures.table import read_batches, read_schema, row_count, writing_rows
from assets.progress import track

logger = logging.getLogger(__name__)

ROWS_PER_BATCH = 64  # decoded side by side
USABLE = artifacts.WORK / "curated_images" / "usable"
USABLE_SCHEMA = pa.schema([IMAGES_SCHEMA.field("id"), IMAGES_SCHEMA.field("image")])


def make_curated_images(settings: params.CuratedImages) -> None:
    try:
        shutil.rmtree(USABLE, ignore_errors=True)  # of a run that was killed
        metadata, rejected = _inspect_all(settings)
        read = row_count(artifacts.SOURCE_IMAGES)
        kept = _without_small_classes(metadata, rejected, settings.min_images_per_class)
        rejected.sort(key=lambda row: row["id"])
        assert len(kept) + len(rejected) == read
        logger.info("read %d, rejected %d%s", read, len(rejected), _summary(rejected, examples=0))
        _set_split(kept, rejected, settings)
        splits = Counter(row["split"] for row in kept)
        logger.info("kept %d: %s", len(kept), ", ".join(f"{splits[split]} {split}" for split in SPLITS))
        result = _check(kept, settings.min_side)
        with (
            artifacts.replacing(artifacts.CURATED_IMAGES) as images,
            artifacts.replacing(artifacts.REJECTED_IMAGES) as rejects,
            artifacts.replacing(artifacts.EXPECTATIONS) as expectations,
        ):
            _write_kept(images, kept)
            pq.write_table(pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA), rejects)
            artifacts.write_json(expectations, result)
    finally:
        shutil.rmtree(USABLE, ignore_errors=True)


def _inspect_all(settings: params.CuratedImages) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Decode the whole source and write usable images to the table USABLE. Return their other columns, and the rejected rows."""
    if not read_schema(artifacts.SOURCE_IMAGES).equals(IMAGES_SCHEMA):
        raise UserError(f"{artifacts.SOURCE_IMAGES} has other columns than this version reads. `dvc repro source_images` makes it anew.")
    seen = Repetitions()
    metadata: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    max_pixels = int(settings.max_megapixels * 1_000_000)

    def inspected() -> Iterator[tuple[dict[str, Any], Any]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, ROWS_PER_BATCH):
                rows = batch.to_pylist()
                yield from zip(
                    rows,
                    pool.map(lambda row: inspect(row["image"], max_pixels=max_pixels, min_side=settings.min_side), rows),
                    strict=True,
                )

    previous = ""
    with warnings.catch_warnings(), writing_rows(USABLE, USABLE_SCHEMA) as write:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata; what cannot be decoded is rejected with a reason
        for row, found in track(inspected(), total=row_count(artifacts.SOURCE_IMAGES), what="decoding", unit="images"):
            if row["id"] < previous:
                raise UserError(f"{artifacts.SOURCE_IMAGES} is not in order of id. `dvc repro source_images` makes it anew.")
            previous = row["id"]
            reason = seen.repeated_id(row["id"])
            if reason is None and isinstance(found, BadPicture):
                reason = found.reason, found.detail
            if reason is None:
                reason = seen.repeated_pixels(row["id"], row["label"], found.pixels)
            if reason is not None:
                rejected.append({"id": row["id"], "reason": reason[0], "detail": reason[1]})
                continue
            write({"id": row["id"], "image": found.image})
            del row["image"]
            row["family"] = None if row["label"] is None else row["family"] or row["label"]
            metadata.append(row | {"width": found.width, "height": found.height, "sha256": found.sha256})
    return metadata, rejected


def _without_small_classes(metadata: list[dict[str, Any]], rejected: list[dict[str, str]], min_images: int) -> list[dict[str, Any]]:
    small = too_small_classes([row["label"] for row in metadata], min_images)
    kept = []
    for row in metadata:
        if row["label"] in small:
            reason, detail = small[row["label"]]
            rejected.append({"id": row["id"], "reason": reason, "detail": detail})
        else:
            kept.append(row)
    return kept


def _set_split(kept: list[dict[str, Any]], rejected: list[dict[str, str]], settings: params.CuratedImages) -> None:
    try:
        splits = split_images(
            [row["id"] for row in kept],
            [row["label"] for row in kept],
            [row["family"] for row in kept],
            [row["given_split"] for row in kept],
            seed=settings.seed,
            test_fraction=settings.test_fraction,
            validation_classes=settings.validation_classes,
            validation_pictures=settings.validation_pictures,
        )
    except UserError as error:
        raise UserError(
            f"{error} Each class needs {settings.min_images_per_class} different pictures"
            f" (curated_images.min_images_per_class). {len(rejected)} picture(s) were rejected{_summary(rejected, examples=3)}."
        ) from None
    for row, split in zip(kept, splits, strict=True):
        row["split"] = split


def _summary(rejected: list[dict[str, str]], examples: int) -> str:
    """ ": 2 undecodable (b.jpg: no bytes; …), 1 too_small (…)", with up to `examples` of each reason; "" without rejected rows."""
    by_reason: dict[str, list[str]] = {}
    for row in rejected:
        by_reason.setdefault(row["reason"], []).append(f"{row['id']}: {row['detail']}")
    parts = [
        f"{len(rows)} {reason}" + (f" ({'; '.join(rows[:examples])}{'; …' if len(rows) > examples else ''})" if examples else "")
        for reason, rows in sorted(by_reason.items())
    ]
    return f": {', '.join(parts)}" if parts else ""


def _check(kept: list[dict[str, Any]], min_side: int) -> dict[str, Any]:
    """Run the expectations. Also write their result where dvc does not remove it, so that it can be read after a failure."""
    from assets.curated_images.expectations import failures, validate

    logger.info("checking the expectations")
    result = validate(kept, min_side)
    artifacts.write_json(artifacts.LAST_EXPECTATIONS, result)
    if not result["success"]:
        raise UserError(
            f"the curated images do not meet {len(failures(result))} expectation(s): {'; '.join(failures(result))}."
            f" Details: {artifacts.LAST_EXPECTATIONS}. Nothing was written."
        )
    return result


def _write_kept(path: Path, kept: list[dict[str, Any]]) -> None:
    """Write rows in order of split, then id. USABLE is in order of id, so one pass over it per split is enough."""
    with writing_rows(path, CURATED_SCHEMA) as write:
        for split in SPLITS:
            rows = {row["id"]: row for row in kept if row["split"] == split}
            for batch in read_batches(USABLE, USABLE_SCHEMA.names, ROWS_PER_BATCH) if rows else ():
                for stored in batch.to_pylist():
                    if row := rows.get(stored["id"]):
                        write(row | {"image": stored["image"]})
