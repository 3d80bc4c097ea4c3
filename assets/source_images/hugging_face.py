"""Datasets that Hugging Face's library wrote with save_to_disk, or as Parquet: Arrow's files, which pyarrow reads. Meaning: records.py.

Numbers of a ClassLabel are replaced by its names. Where folders or files are called after splits, there is a column `split`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets import params
from assets.addresses import exists, is_folder, opened
from assets.errors import UserError
from assets.source_images.files import files_under
from assets.source_images.folder_levels import split_named
from assets.source_images.listed import Listed, in_order
from assets.source_images.records import Record, Records, list_records
from assets.source_images.table import ROWS_PER_BATCH, row_id

WAY_OUT = "Allowed: a folder that datasets' save_to_disk wrote, or one of its .arrow or .parquet files"


def list_hugging_face(source: params.HuggingFace) -> Listed:
    return list_records(open_hugging_face(source.root), source)


def open_hugging_face(root: str) -> Records:
    files = data_files(root)
    schema = _schema(next(iter(files.values())))
    splits = splits_of(files)
    columns = [*schema.names, *(["split"] if splits and "split" not in schema.names else [])]

    def batches(wanted: Sequence[str]) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
        for name, address in files.items():
            before = 0
            for batch in _batches(address, wanted):
                names = class_names(batch.schema)  # of this file: splits may number their labels otherwise
                rows = batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows
                for row in rows if names else ():
                    row |= {each: _named(row[each], own) for each, own in names.items() if each in row}
                yield name, before, rows
                before += batch.num_rows

    def read(wanted: Sequence[str]) -> Iterator[Record]:
        for name, before, rows in batches([each for each in wanted if each in schema.names]):
            for number, row in enumerate(rows, before + 1):
                yield Record(row_id(name, number), {"split": splits.get(name)} | row)

    def pictures(positions: Sequence[int], column: str | None) -> Iterator[Any]:
        assert column is not None
        return in_order(lambda: (row[column] for _, _, rows in batches([column]) for row in rows), positions)

    return Records(columns, read, pictures)


def data_files(root: str) -> dict[str, str]:
    """Name → address, in order of name. A dataset's state.json names its files; caches that lie beside them are not among these."""
    if not exists(root):
        raise UserError(f"source_images.sources, root: {root} is missing. {WAY_OUT}.")
    if not is_folder(root):
        return {root.rstrip("/").rpartition("/")[2]: root}
    found = files_under(root)
    named: list[str] = []
    for state in [name for name in found if name.rpartition("/")[2] == "state.json"]:
        try:
            with opened(found[state]) as file:
                named += [f"{state.removesuffix('state.json')}{each['filename']}" for each in json.load(file)["_data_files"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{found[state]} does not name the dataset's files: {error!r}. Save the dataset anew.") from error
    if missing := [name for name in named if name not in found]:
        raise UserError(f"{root} lacks {missing[0]}, which its state.json names. Save the dataset anew.")
    if not named:
        named = [name for suffix in (".arrow", ".parquet") for name in found if name.endswith(suffix)]
    if not named:
        raise UserError(f"source_images.sources, root: {root} holds no dataset. {WAY_OUT}.")
    return {name: found[name] for name in sorted(named)}


def splits_of(files: Iterable[str]) -> dict[str, str]:
    """The split of each file, by its folder in a DatasetDict, or by its own name as on the hub, train-00000-of-00002.parquet.

    Empty where a file is of none.
    """
    found = {}
    for name in files:
        folder, _, file = name.rpartition("/")
        split = next((each for each in (folder.partition("/")[0], file.partition("-")[0]) if split_named(each)), None)
        if split is None:
            return {}
        found[name] = split
    return found


def _schema(address: str) -> pa.Schema:
    """The columns of a file, which may have no rows."""
    with _readable(address), opened(address) as stream:
        if address.endswith(".parquet"):
            with pq.ParquetFile(stream) as file:
                return file.schema_arrow
        with pa.ipc.open_stream(stream) as reader:
            return reader.schema


@contextlib.contextmanager
def _readable(address: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, UnicodeError) as error:
        raise UserError(f"{address} is not a readable Arrow or Parquet file, or lacks a column: {error}. {WAY_OUT}.") from error


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of each ClassLabel, by column: what the library writes about its features into the schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        labels = {name: each for name, each in features.items() if isinstance(each, dict) and each.get("_type") == "ClassLabel"}
        return {name: list(each["names"]) for name, each in labels.items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"what the dataset says of its features is broken: {error!r}. Save it anew.") from error


def _named(value: Any, names: list[str]) -> Any:
    """-1 is what the library writes for a picture without a label."""
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _batches(address: str, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """Record batches of a file, with all columns for None."""
    with _readable(address), opened(address) as stream:
        if address.endswith(".parquet"):
            with pq.ParquetFile(stream) as file:
                for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns and list(columns)):
                    yield batch.replace_schema_metadata(file.schema_arrow.metadata)
            return
        with pa.ipc.open_stream(stream) as reader:  # no memory map: where the file is cut meanwhile, that kills the process
            for batch in reader:
                batch.validate(full=True)  # a broken file may point anywhere
                yield batch if columns is None else batch.select(list(columns))
