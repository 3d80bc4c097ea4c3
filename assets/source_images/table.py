"""Tables of pictures: CSV, Parquet and JSONL files, one or a folder of one kind. What the columns mean is records.py's concern."""

from __future__ import annotations

import csv
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets import params
from assets.addresses import exists, is_folder, opened
from assets.errors import UserError
from assets.source_images.delimited import as_text, read_delimited, unreadable
from assets.source_images.files import files_under
from assets.source_images.listed import Listed, in_order
from assets.source_images.records import Record, Records, list_records

logger = logging.getLogger(__name__)

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson.gz": "jsonl",
    ".parquet": "parquet",
}
ROWS_PER_BATCH = 256


def list_table(source: params.Table) -> Listed:
    return list_records(open_table(source.root, tuple(source.columns.values())), source, source.pictures)


def open_table(root: str, wanted: Sequence[str]) -> Records:
    """`wanted`: the columns' names; a CSV header that differs from one in case alone is called like it."""
    files = table_files(root)
    kind = SUFFIXES[_suffix(next(iter(files)))]
    if kind == "parquet":
        return _parquet(files)
    return _csv(files, wanted) if kind == "csv" else _jsonl(files)


def table_files(root: str) -> dict[str, str]:
    """Name → address, in order of name. UserError where there is none, or tables of several kinds."""
    if not exists(root):
        raise UserError(f"source_images.sources, root: {root} is missing. Allowed: a file or a folder of {', '.join(SUFFIXES)}.")
    found = files_under(root) if is_folder(root) else {root.rstrip("/").rpartition("/")[2]: root}
    tables = {name: address for name, address in found.items() if _suffix(name)}
    kinds = sorted({SUFFIXES[_suffix(name)] for name in tables})
    if len(kinds) != 1:
        has = (
            f"tables of {len(kinds)} kinds, {' and '.join(kinds)}: name one file" if kinds else f"no table. Allowed: {', '.join(SUFFIXES)}"
        )
        raise UserError(f"source_images.sources, root: {root} has {has}.")
    return tables


def _suffix(name: str) -> str:
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.casefold().endswith(suffix)), "")


def row_id(name: str, number: int) -> str:
    """Of a row without an id of its own: its file and its number there, from 1. Rows that come after it do not change it."""
    return f"{name}#{number:09}"


def _parquet(files: dict[str, str]) -> Records:
    def batches(columns: Sequence[str]) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
        """(file, rows before, rows)"""
        for name, address in files.items():
            try:
                with opened(address) as stream, pq.ParquetFile(stream) as file:
                    before = 0
                    for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=list(columns)):
                        yield name, before, batch.to_pylist() if columns else [{}] * batch.num_rows
                        before += batch.num_rows
            except (pa.ArrowException, OSError, KeyError, UnicodeError) as error:
                raise UserError(
                    f"{address} is not a readable Parquet file: {error}. Write it anew, or remove it from the folder."
                ) from error

    def read(columns: Sequence[str]) -> Iterator[Record]:
        for name, before, rows in batches(columns):
            for number, row in enumerate(rows, before + 1):
                yield Record(row_id(name, number), row)

    def pictures(positions: Sequence[int], column: str | None) -> Iterator[Any]:
        assert column is not None
        return in_order(lambda: (row[column] for _, _, rows in batches([column]) for row in rows), positions)

    return Records(_same_columns(files, _parquet_columns), read, pictures)


def _parquet_columns(address: str) -> list[str]:
    try:
        with opened(address) as stream, pq.ParquetFile(stream) as file:
            return list(file.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise UserError(f"{address} is not a readable Parquet file: {error}. Write it anew, or remove it.") from error


def _same_columns(files: dict[str, str], columns_of: Any) -> list[str]:
    """What every file has; an empty file, such as the last part of an export, has no say."""
    columns: dict[str, list[str]] = {name: found for name, address in files.items() if (found := columns_of(address))}
    first = next(iter(columns.values()), [])
    for column in first:
        if lacking := [name for name, found in columns.items() if column not in found]:
            logger.warning("%s lacks the column %s, which others have: it is not read", lacking[0], column)
    return [column for column in first if all(column in found for found in columns.values())]


def _csv(files: dict[str, str], wanted: Sequence[str]) -> Records:
    expected = f"a header line such as {','.join(wanted)}, then one row for each picture"

    def columns_of(address: str) -> list[str]:
        try:
            with as_text(opened(address, unpacked=True)) as text:
                return read_delimited(text, wanted)[0]
        except (csv.Error, UnicodeError, OSError, EOFError, zlib.error) as error:
            raise unreadable(address, error, expected) from error

    def read(columns: Sequence[str]) -> Iterator[Record]:
        for name, address in files.items():
            try:
                with as_text(opened(address, unpacked=True)) as text:
                    header, rows = read_delimited(text, wanted)
                    for number, (line, row) in enumerate(rows, 1):
                        problem = "" if row is not None else f"{name}, line {line}: expected {len(header)} fields, found another number."
                        yield Record(row_id(name, number), {each: (row or {}).get(each) for each in columns}, problem)
            except (csv.Error, UnicodeError, OSError, EOFError, zlib.error) as error:
                raise unreadable(address, error, expected) from error

    return Records(_same_columns(files, columns_of), read, _again(read))


def _jsonl(files: dict[str, str]) -> Records:
    def objects(address: str) -> Iterator[tuple[int, Any]]:
        """(line number, what it holds); None for a line that is no JSON object. Empty lines are left out."""
        try:
            with as_text(opened(address, unpacked=True)) as text:
                for line, content in enumerate(text, 1):
                    if content.strip():
                        try:
                            found = json.loads(content)
                        except (ValueError, RecursionError):
                            found = None
                        yield line, found if isinstance(found, dict) else None
        except (UnicodeError, OSError, EOFError, zlib.error) as error:
            raise UserError(f"{address} is not JSON lines in UTF-8: {error}. Expected: one object on each line.") from error

    def columns_of(address: str) -> list[str]:
        seen: dict[str, None] = {}
        for _, found in objects(address):
            seen |= dict.fromkeys(found or {})
        return list(seen)

    def read(columns: Sequence[str]) -> Iterator[Record]:
        for name, address in files.items():
            for number, (line, found) in enumerate(objects(address), 1):
                problem = "" if found is not None else f"{name}, line {line}: not a JSON object."
                yield Record(row_id(name, number), {each: (found or {}).get(each) for each in columns}, problem)

    columns: dict[str, None] = {}
    for address in files.values():  # an object leaves out what it has not
        columns |= dict.fromkeys(columns_of(address))
    return Records(list(columns), read, _again(read))


def _again(read: Any) -> Any:
    """The pictures of a text file: its rows are read once more."""
    return lambda positions, column: in_order(lambda: (record.values[column] for record in read([column])), positions)
