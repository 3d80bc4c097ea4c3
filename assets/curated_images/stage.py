"""The stage curated_images: every source image ends in one of two tables, kept or rejected. Each rule is a module of this package.

The stage reads the source once, in order of id, and decodes what no run before it has seen. Usable images wait on disk until the split of
every image is known.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts, params
from assets.curated_images.drop import look, refuse_if_blocked
from assets.curated_images.inspection import Usable, inspect_all, inspections
from assets.curated_images.nearest import NEAREST_SCHEMA, near_identical, nearest
from assets.curated_images.rejection import REJECTED_SCHEMA, repeated_pictures, too_small_classes
from assets.curated_images.split import split_images
from assets.curated_images.thumbnails import Thumbnails
from assets.errors import UserError
from assets.pictures.decoding import BadPicture
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA, SPLITS
from assets.pictures.table import read_batches, read_schema, row_count, writing_rows
from assets.progress import track

logger = logging.getLogger(__name__)

ROWS_PER_BATCH = 64  # decoded side by side
ROWS_PER_PIECE = 1024  # held as Python objects
MANY_NEAR_TEST = 0.05  # a larger share of the training pictures that leave is worth a warning
WAITING = artifacts.WORK / "curated_images" / "waiting"
USABLE, THUMBNAILS = WAITING / "images", WAITING / "thumbnails"
USABLE_SCHEMA = pa.schema([IMAGES_SCHEMA.field("id"), IMAGES_SCHEMA.field("image")])
WAITING_SCHEMA = pa.schema(
    [
        *(field for field in CURATED_SCHEMA if field.name not in ("image", "split")),
        pa.field("pixels", pa.binary(), nullable=False),
        pa.field("thumbnail", pa.int64(), nullable=False),
    ]
)


def make_curated_images(settings: params.CuratedImages) -> None:
    try:
        shutil.rmtree(WAITING, ignore_errors=True)  # of a run that was killed
        WAITING.mkdir(parents=True)
        usable, rejected = _inspect_all(settings)
        read = row_count(artifacts.SOURCE_IMAGES)
        usable = _without_small_classes(_distinct(usable, rejected), rejected, settings.min_images_per_class)
        rejected.sort(key=lambda row: row["id"])
        usable = _with_splits(usable, rejected, settings)
        usable = _without_near_test(usable, rejected, settings.min_difference_to_test)
        rejected.sort(key=lambda row: row["id"])
        assert usable.height + len(rejected) == read
        logger.info("read %d, rejected %d%s", read, len(rejected), _summary(rejected, examples=0))
        splits = dict(usable["split"].value_counts().iter_rows())
        logger.info("kept %d: %s", usable.height, ", ".join(f"{splits.get(split, 0)} {split}" for split in SPLITS))
        found = look(usable, rejected, _thumbnails, settings.drop)
        refuse_if_blocked(found)
        result = _check(usable, settings.min_side)
        audit = _nearest_table(usable)
        with (
            artifacts.replacing(artifacts.CURATED_IMAGES) as images,
            artifacts.replacing(artifacts.REJECTED_IMAGES) as rejects,
            artifacts.replacing(artifacts.EXPECTATIONS) as expectations,
            artifacts.replacing(artifacts.DROP) as drop,
            artifacts.replacing(artifacts.NEAREST) as siblings,
        ):
            _write_kept(images, usable)
            pq.write_table(pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA), rejects)
            artifacts.write_json(expectations, result)
            artifacts.write_json(drop, found)
            pq.write_table(audit, siblings)
    finally:
        shutil.rmtree(WAITING, ignore_errors=True)


def _inspect_all(settings: params.CuratedImages) -> tuple[pl.DataFrame, list[dict[str, str]]]:
    """Read the whole source; usable images wait in USABLE, thumbnails in THUMBNAILS. Returns the other columns, and the rejected rows.

    Beside those of the curated table: `pixels`, by which exact duplicates are known, and `thumbnail`, the row in THUMBNAILS.
    """
    if not read_schema(artifacts.SOURCE_IMAGES).equals(IMAGES_SCHEMA):
        raise UserError(f"{artifacts.SOURCE_IMAGES} has other columns than this version reads. `dvc repro source_images` makes it anew.")
    rejected: list[dict[str, str]] = []
    pieces: list[pa.RecordBatch] = []  # columns take a fifth of the memory of rows
    how = {"max_pixels": int(settings.max_megapixels * 1_000_000), "min_side": settings.min_side}

    def inspected() -> Iterator[tuple[dict[str, Any], Usable | BadPicture]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool, inspections(**how) as known:
            for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, ROWS_PER_BATCH):
                rows = batch.to_pylist()
                yield from zip(rows, inspect_all([row["image"] for row in rows], known, pool, **how), strict=True)

    previous, usable, count = None, [], 0
    with warnings.catch_warnings(), writing_rows(USABLE, USABLE_SCHEMA) as write, THUMBNAILS.open("wb") as thumbnails:
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
                thumbnails.write(found.thumbnail)
                row["family"] = None if row["label"] is None else row["family"] or row["label"]
                row |= {"width": found.width, "height": found.height, "sha256": found.sha256}
                usable.append(row | {"pixels": found.pixels, "thumbnail": count})
                count += 1
            if len(usable) == ROWS_PER_PIECE:
                pieces.append(pa.RecordBatch.from_pylist(usable, schema=WAITING_SCHEMA))
                usable = []
            previous = row["id"]
    pieces.append(pa.RecordBatch.from_pylist(usable, schema=WAITING_SCHEMA))
    return pl.DataFrame(pa.Table.from_batches(pieces)), rejected


def _distinct(usable: pl.DataFrame, rejected: list[dict[str, str]]) -> pl.DataFrame:
    alike = usable.filter(pl.len().over("pixels") > 1)
    rows = alike.to_dicts()
    repeated, captions = repeated_pictures(rows, alike["pixels"].to_list())
    for number, (reason, detail) in repeated.items():
        rejected.append({"id": rows[number]["id"], "reason": reason, "detail": detail})
    merged = {"id": [rows[number]["id"] for number in captions], "captions": list(captions.values())}
    return usable.filter(~pl.col("id").is_in([rows[number]["id"] for number in repeated])).update(
        pl.DataFrame(merged, schema={name: usable.schema[name] for name in merged}), on="id", how="left"
    )


def _without_small_classes(usable: pl.DataFrame, rejected: list[dict[str, str]], min_images: int) -> pl.DataFrame:
    counts = usable.drop_nulls("label")["label"].value_counts()
    small = too_small_classes(dict(counts.iter_rows()), min_images)
    leaves = pl.col("label").is_in(list(small)).fill_null(value=False)
    for name, label in usable.filter(leaves).select("id", "label").iter_rows():
        reason, detail = small[label]
        rejected.append({"id": name, "reason": reason, "detail": detail})
    return usable.filter(~leaves)


def _without_near_test(usable: pl.DataFrame, rejected: list[dict[str, str]], min_difference: float) -> pl.DataFrame:
    """Take pictures out of training and validation that show a test picture: the test split stays as it is."""
    if min_difference <= 0:
        return usable
    test = usable.filter(pl.col("split") == "test")
    others = usable.filter(pl.col("split").is_in(["train", "validation"]))
    near = near_identical(_thumbnails(others), _thumbnails(test), min_difference, keep=True)
    leaving = []
    for number, found in near.items():
        shown = test.row(found, named=True)
        detail = f"nearly the same pixels as the test picture {shown['id']} of class {shown['label']}"
        leaving.append(others["id"][number])
        rejected.append({"id": leaving[-1], "reason": "near_test", "detail": detail})
    if len(leaving) > MANY_NEAR_TEST * others.height:
        logger.warning(
            "%d of %d training and validation pictures leave because they are nearly the same as test pictures; the table of rejected"
            " pictures names the pairs. If they differ in what matters, lower curated_images.min_difference_to_test",
            len(leaving),
            others.height,
        )
    return usable.filter(~pl.col("id").is_in(leaving))


def _nearest_table(usable: pl.DataFrame) -> pa.Table:
    """NEAREST_SCHEMA, one row per test picture in order of id."""
    test, train = (usable.filter(pl.col("split") == split) for split in ("test", "train"))
    rows, correlations, differences = nearest(_thumbnails(test), _thumbnails(train), keep=True)
    columns = {"id": test["id"].to_list(), "nearest": train["id"][rows].to_list(), "correlation": correlations, "difference": differences}
    return pa.table(columns, schema=NEAREST_SCHEMA)


def _thumbnails(pictures: pl.DataFrame) -> Thumbnails:
    return Thumbnails(THUMBNAILS, pictures["thumbnail"].to_numpy())


def _with_splits(usable: pl.DataFrame, rejected: list[dict[str, str]], settings: params.CuratedImages) -> pl.DataFrame:
    try:
        splits = split_images(
            *(usable[name].to_list() for name in ("id", "label", "family", "given_split")),
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
    return usable.with_columns(split=pl.Series(splits, dtype=pl.String))


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


def _check(kept: pl.DataFrame, min_side: int) -> dict[str, Any]:
    """Run the expectations. Also write their result where dvc does not remove it, so that it can be read after a failure."""
    from assets.curated_images.expectations import failures, validate

    logger.info("checking the expectations")
    result = validate(kept.drop("pixels", "thumbnail"), min_side)
    artifacts.write_json(artifacts.LAST_EXPECTATIONS, result)
    if not result["success"]:
        raise UserError(
            f"the curated images do not meet {len(failures(result))} expectation(s): {'; '.join(failures(result))}."
            f" Details: {artifacts.LAST_EXPECTATIONS}. Nothing was written."
        )
    return result


def _write_kept(path: Path, kept: pl.DataFrame) -> None:
    """Write rows in order of split, then id. USABLE is in order of id, as `kept` is, so one pass over it per split is enough."""
    with writing_rows(path, CURATED_SCHEMA) as write:
        for split in SPLITS:
            rows = kept.filter(pl.col("split") == split).drop("pixels", "thumbnail").iter_rows(named=True)
            row = next(rows, None)
            for batch in read_batches(USABLE, USABLE_SCHEMA.names, ROWS_PER_BATCH) if row else ():
                for name, image in zip(batch["id"].to_pylist(), batch["image"], strict=True):
                    if row is not None and row["id"] == name:
                        write(row | {"image": image.as_py()})
                        row = next(rows, None)
            assert row is None, row
