"""The stage curated_images: every source image ends in one of two tables, kept or rejected. Each rule is a module of this package.

The stage reads the source once, in order of id, and decodes what no run before it has seen. Usable images wait on disk until the split of
every image is known.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts, params
from assets.curated_images.inspection import Usable, inspect_all, inspections
from assets.curated_images.nearest import NEAREST_SCHEMA, VALUES, near_identical, nearest
from assets.curated_images.rejection import REJECTED_SCHEMA, repeated_pictures, too_small_classes
from assets.curated_images.split import split_images
from assets.errors import UserError
from assets.pictures.decoding import BadPicture
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA, SPLITS
from assets.pictures.table import read_batches, read_schema, row_count, writing_rows
from assets.progress import track

logger = logging.getLogger(__name__)

ROWS_PER_BATCH = 64  # decoded side by side
MANY_NEAR_TEST = 0.05  # a larger share of the training pictures that leave is worth a warning
USABLE = artifacts.WORK / "curated_images" / "usable"
USABLE_SCHEMA = pa.schema([IMAGES_SCHEMA.field("id"), IMAGES_SCHEMA.field("image")])


@dataclass(frozen=True)
class Inspected:
    """A usable image: its row without the picture, and by what it is compared with others."""

    row: dict[str, Any]
    pixels: bytes
    thumbnail: bytes


def make_curated_images(settings: params.CuratedImages) -> None:
    try:
        shutil.rmtree(USABLE, ignore_errors=True)  # of a run that was killed
        usable, rejected = _inspect_all(settings)
        read = row_count(artifacts.SOURCE_IMAGES)
        usable = _without_small_classes(_distinct(usable, rejected), rejected, settings.min_images_per_class)
        rejected.sort(key=lambda row: row["id"])
        _set_split(usable, rejected, settings)
        usable = _without_near_test(usable, rejected, settings.min_difference_to_test)
        rejected.sort(key=lambda row: row["id"])
        assert len(usable) + len(rejected) == read
        logger.info("read %d, rejected %d%s", read, len(rejected), _summary(rejected, examples=0))
        kept = [each.row for each in usable]
        splits = Counter(row["split"] for row in kept)
        logger.info("kept %d: %s", len(kept), ", ".join(f"{splits[split]} {split}" for split in SPLITS))
        result = _check(kept, settings.min_side)
        audit = _nearest_table(usable)
        with (
            artifacts.replacing(artifacts.CURATED_IMAGES) as images,
            artifacts.replacing(artifacts.REJECTED_IMAGES) as rejects,
            artifacts.replacing(artifacts.EXPECTATIONS) as expectations,
            artifacts.replacing(artifacts.NEAREST) as siblings,
        ):
            _write_kept(images, kept)
            pq.write_table(pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA), rejects)
            artifacts.write_json(expectations, result)
            pq.write_table(audit, siblings)
    finally:
        shutil.rmtree(USABLE, ignore_errors=True)


def _inspect_all(settings: params.CuratedImages) -> tuple[list[Inspected], list[dict[str, str]]]:
    """Read the whole source and write usable images to the table USABLE. Return their other columns, and the rejected rows."""
    if not read_schema(artifacts.SOURCE_IMAGES).equals(IMAGES_SCHEMA):
        raise UserError(f"{artifacts.SOURCE_IMAGES} has other columns than this version reads. `dvc repro source_images` makes it anew.")
    usable: list[Inspected] = []
    rejected: list[dict[str, str]] = []
    max_pixels = int(settings.max_megapixels * 1_000_000)

    how = {"max_pixels": max_pixels, "min_side": settings.min_side}

    def inspected() -> Iterator[tuple[dict[str, Any], Usable | BadPicture]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool, inspections(**how) as known:
            for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, ROWS_PER_BATCH):
                rows = batch.to_pylist()
                yield from zip(rows, inspect_all([row["image"] for row in rows], known, pool, **how), strict=True)

    previous = None
    with warnings.catch_warnings(), writing_rows(USABLE, USABLE_SCHEMA) as write:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata; what cannot be decoded is rejected with a reason
        for row, found in track(inspected(), total=row_count(artifacts.SOURCE_IMAGES), what="decoding", unit="images"):
            if previous is not None and row["id"] < previous:
                raise UserError(f"{artifacts.SOURCE_IMAGES} is not in order of id. `dvc repro source_images` makes it anew.")
            if row["id"] == previous:
                rejected.append({"id": row["id"], "reason": "duplicate_id", "detail": "an earlier row has this id"})
            elif isinstance(found, BadPicture):
                rejected.append({"id": row["id"], "reason": found.reason, "detail": found.detail})
            else:
                write({"id": row["id"], "image": found.image})
                del row["image"]
                row["family"] = None if row["label"] is None else row["family"] or row["label"]
                row |= {"width": found.width, "height": found.height, "sha256": found.sha256}
                usable.append(Inspected(row, found.pixels, found.thumbnail))
            previous = row["id"]
    return usable, rejected


def _distinct(usable: list[Inspected], rejected: list[dict[str, str]]) -> list[Inspected]:
    repeated, captions = repeated_pictures([each.row for each in usable], [each.pixels for each in usable])
    for number, (reason, detail) in repeated.items():
        rejected.append({"id": usable[number].row["id"], "reason": reason, "detail": detail})
    for number, merged in captions.items():
        usable[number] = replace(usable[number], row=usable[number].row | {"captions": merged})
    return [each for number, each in enumerate(usable) if number not in repeated]


def _without_small_classes(usable: list[Inspected], rejected: list[dict[str, str]], min_images: int) -> list[Inspected]:
    small = too_small_classes([each.row["label"] for each in usable], min_images)
    kept = []
    for each in usable:
        if each.row["label"] in small:
            reason, detail = small[each.row["label"]]
            rejected.append({"id": each.row["id"], "reason": reason, "detail": detail})
        else:
            kept.append(each)
    return kept


def _without_near_test(usable: list[Inspected], rejected: list[dict[str, str]], min_difference: float) -> list[Inspected]:
    """Take pictures out of training and validation that show a test picture: the test split stays as it is."""
    test = [number for number, each in enumerate(usable) if each.row["split"] == "test"]
    others = [number for number, each in enumerate(usable) if each.row["split"] in ("train", "validation")]
    near = near_identical(_thumbnails(usable, others), _thumbnails(usable, test), min_difference) if min_difference > 0 else {}
    leaving = {others[query]: test[row] for query, row in near.items()}
    for number, found in leaving.items():
        shown = usable[found].row
        detail = f"nearly the same pixels as the test picture {shown['id']} of class {shown['label']}"
        rejected.append({"id": usable[number].row["id"], "reason": "near_test", "detail": detail})
    if len(leaving) > MANY_NEAR_TEST * len(others):
        logger.warning(
            "%d of %d training and validation pictures leave because they are nearly the same as test pictures; the table of rejected"
            " pictures names the pairs. If they differ in what matters, lower curated_images.min_difference_to_test",
            len(leaving),
            len(others),
        )
    return [each for number, each in enumerate(usable) if number not in leaving]


def _nearest_table(usable: list[Inspected]) -> pa.Table:
    """NEAREST_SCHEMA, one row per test picture in order of id."""
    test = [number for number, each in enumerate(usable) if each.row["split"] == "test"]
    train = [number for number, each in enumerate(usable) if each.row["split"] == "train"]
    rows, correlations, differences = nearest(_thumbnails(usable, test), _thumbnails(usable, train))
    columns = {
        "id": [usable[number].row["id"] for number in test],
        "nearest": [usable[train[row]].row["id"] for row in rows],
        "correlation": correlations,
        "difference": differences,
    }
    return pa.table(columns, schema=NEAREST_SCHEMA)


def _thumbnails(usable: list[Inspected], numbers: list[int]) -> np.ndarray:
    joined = b"".join(usable[number].thumbnail for number in numbers)
    return np.frombuffer(joined, np.uint8).reshape(len(numbers), VALUES)


def _set_split(kept: list[Inspected], rejected: list[dict[str, str]], settings: params.CuratedImages) -> None:
    try:
        splits = split_images(
            [each.row["id"] for each in kept],
            [each.row["label"] for each in kept],
            [each.row["family"] for each in kept],
            [each.row["given_split"] for each in kept],
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
    for each, split in zip(kept, splits, strict=True):
        each.row["split"] = split


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
