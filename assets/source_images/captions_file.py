"""Read what a user wrote about the pictures of a folder: captions.csv or captions.parquet. Finding pictures is image_folder's concern.

One row per caption, in the columns path and caption; the optional columns family and split say more about the row's picture.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.addresses import exists, opened
from assets.errors import UserError
from assets.source_images.delimited import as_text, read_delimited, unreadable
from assets.source_images.folder_levels import SPLIT_NAMES, split_named
from assets.source_images.known_paths import KnownPaths
from assets.source_images.spelling import one_spelling

logger = logging.getLogger(__name__)

NAMES = ("captions.csv", "captions.parquet")
COLUMNS = ("path", "caption")
OPTIONAL = ("family", "split")

TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)  # null: a column that is all empty

Row = Mapping[str, str | None]


@dataclass
class Written:
    """What the file says of one picture: its distinct captions in the file's order, its family and its split."""

    captions: list[str] = field(default_factory=list)
    family: str | None = None
    split: str | None = None


def read_captions(root: Path | str, pictures: Sequence[str]) -> dict[str, Written]:
    """What is written of each picture (its path relative to `root`) that is named; {} without such a file.

    Skips empty captions and logs how many there were. Raises UserError for a row that names a picture not in `pictures`, for a split that
    is none, and for two families or splits of one picture.
    """
    present = [file for name in NAMES if exists(file := f"{root}/{name}")]
    if len(present) > 1:
        raise UserError(f"{root} has both {' and '.join(NAMES)}. Keep the one that is meant.")
    if not present:
        return {}
    file = present[0]
    known = KnownPaths(pictures, str(root))
    found: dict[str, Written] = {}
    absent: dict[str, None] = {}
    empty = rows = 0
    for row in _read_csv(file) if file.endswith(".csv") else _read_parquet(file):
        rows += 1
        path, caption = row["path"] or "", one_spelling((row["caption"] or "").strip())
        picture = known.find(path)
        if picture is None:
            absent[path] = None
            continue
        written = found.setdefault(picture, Written())
        stated = _take(file, picture, written, row)
        if caption and caption not in written.captions:
            written.captions.append(caption)
        empty += not caption and not stated
    if absent:
        raise UserError(
            f"{file} names {len(absent)} picture(s) that are not in {root}: {', '.join(map(repr, list(absent)[:3]))}"
            f"{', …' if len(absent) > 3 else ''}. The column path is relative to {root}, with /, such as"
            f" {pictures[0]!r}; correct or remove these rows.{known.hint(next(iter(absent)))}"
        )
    if empty:
        logger.warning("%s: skipped %d row(s) with an empty caption", file, empty)
    captioned = sum(bool(each.captions) for each in found.values())
    logger.info("%s: %d rows, %d of %d pictures have captions", file, rows, captioned, len(pictures))
    return found


def _take(file: str, picture: str, written: Written, row: Row) -> bool:
    """Keep the row's family and split; whether it has any of the two."""
    family, split = (one_spelling((row.get(name) or "").strip()) for name in OPTIONAL)
    if split and split_named(split) is None:
        raise UserError(f"{file}: {picture} has the split {split!r}. Allowed, in any case: {', '.join(SPLIT_NAMES)}, or nothing.")
    for name, before, now in (("families", written.family, family or None), ("splits", written.split, split_named(split))):
        if before is not None and now is not None and before != now:
            raise UserError(f"{file}: {picture} has two {name}, {before} and {now}. Keep the one that is meant in all its rows.")
    written.family, written.split = family or written.family, split_named(split) or written.split
    return bool(family or split)


def _read_csv(file: str) -> Iterator[Row]:
    try:
        with as_text(opened(file)) as text:
            header, rows = read_delimited(text, (*COLUMNS, *OPTIONAL))
            _refuse_twice(file, header)
            _check_columns(file, header)
            for line, row in rows:
                if row is None:
                    raise UserError(
                        f"{file}, line {line}: expected {len(header)} fields, found another number."
                        " A caption with a comma needs quotation marks around it."
                    )
                yield row
    except (csv.Error, UnicodeError) as error:
        raise unreadable(file, error, "a header line path,caption, then one row per caption") from error


def _read_parquet(file: str) -> Iterator[Row]:
    try:
        with opened(file) as stream, pq.ParquetFile(stream) as parquet:
            given = parquet.schema_arrow.names
            _refuse_twice(file, given)
            called = {name: next((each for each in given if each.strip().casefold() == name), name) for name in (*COLUMNS, *OPTIONAL)}
            called |= {name: name for name in called if name in given}
            _check_columns(file, [*given, *(name for name, each in called.items() if each in given)])
            taken = {name: each for name, each in called.items() if each in given}
            for each in taken.values():
                kind = parquet.schema_arrow.field(each).type
                if pa.types.is_dictionary(kind):  # as pandas and Polars keep a few texts that come often
                    kind = kind.value_type
                if not any(fits(kind) for fits in TEXTS):
                    raise UserError(f"{file}: column {each} is of type {kind}; it must be string.")
            for batch in parquet.iter_batches(columns=list(taken.values())):
                for row in batch.to_pylist():
                    yield {name: row[each] for name, each in taken.items()}
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a readable Parquet file: {error}. Expected: string columns path and caption.") from error


def _refuse_twice(file: str, given: Sequence[str]) -> None:
    if twice := [name for name in (*COLUMNS, *OPTIONAL) if list(given).count(name) > 1]:
        raise UserError(f"{file} has the column {twice[0]} more than once. Give one row to each caption, or rename the others.")


def _check_columns(file: str, given: Sequence[str]) -> None:
    if missing := [name for name in COLUMNS if name not in given]:
        raise UserError(f"{file} lacks the column(s) {', '.join(missing)}; it has {', '.join(given) or 'none'}. Needed: path, caption.")
