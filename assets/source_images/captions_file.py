"""Read what a user wrote about the pictures of a folder: captions.csv or captions.parquet. Finding pictures is image_folder's concern."""

from __future__ import annotations

import csv
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from assets.errors import UserError

logger = logging.getLogger(__name__)

NAMES = ("captions.csv", "captions.parquet")
COLUMNS = ("path", "caption")


def read_captions(root: Path, pictures: list[str]) -> dict[str, list[str]]:
    """Picture (its path relative to `root`) → its distinct captions in the file's order; {} without such a file.

    Skips empty captions and logs how many there were. Raises UserError for a row that names a picture not in `pictures`.
    """
    present = [root / name for name in NAMES if (root / name).is_file()]
    if len(present) > 1:
        raise UserError(f"{root} has both {' and '.join(NAMES)}. Keep the one that is meant.")
    if not present:
        return {}
    file = present[0]
    known = {_normal(each): each for each in pictures}
    found: dict[str, dict[str, None]] = {}
    absent: dict[str, None] = {}
    empty = rows = 0
    for path, caption in _read_csv(file) if file.suffix == ".csv" else _read_parquet(file):
        rows += 1
        picture = known.get(_normal(path))
        if picture is None:
            absent[path] = None
        elif caption.strip():
            found.setdefault(picture, {})[caption.strip()] = None
        else:
            empty += 1
    if absent:
        raise UserError(
            f"{file} names {len(absent)} picture(s) that are not in {root}: {', '.join(map(repr, list(absent)[:3]))}"
            f"{', …' if len(absent) > 3 else ''}. The column path is relative to {root}, with /, such as"
            f" {pictures[0]!r}; correct or remove these rows."
        )
    if empty:
        logger.warning("%s: skipped %d row(s) with an empty caption", file, empty)
    logger.info("%s: %d rows, %d of %d pictures have captions", file, rows, len(found), len(pictures))
    return {picture: list(captions) for picture, captions in found.items()}


def _normal(path: str) -> str:
    """One spelling for ./a.jpg and a.jpg, and for accents in one or two characters (macOS lists files with two)."""
    return unicodedata.normalize("NFC", PurePosixPath(path).as_posix())


def _read_csv(file: Path) -> Iterator[tuple[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets put a byte order mark first
            reader = csv.DictReader(stream, strict=True)
            _check_columns(file, reader.fieldnames or [])
            for row in reader:
                if None in row or row["path"] is None or row["caption"] is None:
                    raise UserError(
                        f"{file}, line {reader.line_num}: expected {len(reader.fieldnames or [])} fields, found another number."
                        " A caption with a comma needs quotation marks around it."
                    )
                yield row["path"], row["caption"]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not CSV in UTF-8: {error}. Expected: a header line path,caption, then one row per caption.") from error


def _read_parquet(file: Path) -> Iterator[tuple[str, str]]:
    try:
        with pq.ParquetFile(file) as parquet:
            _check_columns(file, parquet.schema_arrow.names)
            for name in COLUMNS:
                kind = parquet.schema_arrow.field(name).type
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    raise UserError(f"{file}: column {name} is of type {kind}; it must be string.")
            for batch in parquet.iter_batches(columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    yield row["path"] or "", row["caption"] or ""
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a readable Parquet file: {error}. Expected: string columns path and caption.") from error


def _check_columns(file: Path, given: Sequence[str]) -> None:
    if missing := [name for name in COLUMNS if name not in given]:
        raise UserError(f"{file} lacks the column(s) {', '.join(missing)}; it has {', '.join(given) or 'none'}. Needed: path, caption.")
