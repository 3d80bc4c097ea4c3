"""A picture table: a directory of Parquet shards, read and written here alone, a row group in memory at most.

A shard is `00000.parquet`, `00001.parquet` …; their rows, one shard after the other, are the table's order. Columns: schema.py.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from assets import artifacts
from assets.errors import UserError
from assets.pictures.decoding import decode

ROWS_PER_GROUP = 512
BYTES_PER_GROUP = 64 << 20  # big photographs: fewer rows a group, so that a reader's memory stays bounded
GROUPS_PER_SHARD = 16
BYTES_PER_SHARD = 256 << 20


@contextlib.contextmanager
def writing_rows(table: Path, schema: pa.Schema) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends one row, with a picture in column `image`, to the new table `table`; one row group is held."""
    table.mkdir(parents=True)
    plain = [name for name in schema.names if name != "image"]  # pictures gain nothing from a dictionary, or from minimum and maximum
    group: list[dict[str, Any]] = []
    held = groups = in_shard = shards = 0
    writer: pq.ParquetWriter | None = None

    def close() -> None:
        nonlocal writer
        if writer is not None:
            writer.close()
        writer = None

    def flush() -> None:
        nonlocal held, groups, in_shard, shards, writer
        if not group and shards:
            return
        if writer is None or groups == GROUPS_PER_SHARD or in_shard >= BYTES_PER_SHARD:
            close()
            path = table / f"{shards:05}.parquet"
            writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain, write_statistics=plain)
            shards, groups, in_shard = shards + 1, 0, 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
        groups, in_shard = groups + 1, in_shard + held
        group.clear()
        held = 0

    def write(row: dict[str, Any]) -> None:
        nonlocal held
        group.append(row)
        held += len(row["image"])
        if len(group) == ROWS_PER_GROUP or held >= BYTES_PER_GROUP:
            flush()

    try:
        yield write
        flush()  # an empty table has one shard, which tells its columns
    finally:
        close()


def shards(table: Path) -> list[Path]:
    """The table's files in its order. UserError where it is none."""
    found = sorted(table.glob("*.parquet"))
    if not found:
        raise UserError(f"{table} is not a picture table: it has no Parquet files. `dvc repro` or `dvc checkout` makes it anew.")
    return found


def read_schema(table: Path) -> pa.Schema:
    return pq.read_schema(shards(table)[0])


def row_count(table: Path, split: str | None = None) -> int:
    """How many rows the table has, or one of its splits."""
    if split is None:
        return sum(pq.read_metadata(shard).num_rows for shard in shards(table))
    return sum(group.rows for group in groups_of(table, split))


def read_rows(table: Path, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows without their pictures, in the table's order: of one split or of all, all columns or some."""
    wanted = list(columns) if columns is not None else [name for name in read_schema(table).names if name != "image"]
    only = None if split is None else pc.field("split") == split
    return pa.concat_tables([pq.read_table(shard, columns=wanted, filters=only) for shard in shards(table)])


def read_batches(table: Path, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """All rows in their order, `batch_size` at most at a time."""
    for shard in shards(table):
        with pq.ParquetFile(shard) as file:
            yield from file.iter_batches(batch_size=batch_size, columns=list(columns))


def read_images(table: Path, split: str) -> Iterator[bytes]:
    """The encoded pictures of one split, in the table's order."""
    for group in groups_of(table, split):
        yield from group.images()


def read_images_of(table: Path, ids: Collection[str]) -> dict[str, bytes]:
    """The encoded pictures of some rows, by id."""
    wanted = pc.field("id").isin(sorted(ids))
    found: dict[str, bytes] = {}
    for shard in shards(table):
        rows = pq.read_table(shard, columns=["id", "image"], filters=wanted)
        found |= zip(rows["id"].to_pylist(), rows["image"].to_pylist(), strict=True)
    return found


@dataclass(frozen=True)
class Split:
    """One split of a table, as an encoder takes it."""

    table: Path
    name: str

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(f"{artifacts.sha256_of(self.table)} {self.name}".encode()).hexdigest()

    def __len__(self) -> int:
        return row_count(self.table, self.name)

    def items(self) -> Iterator[bytes]:
        return read_images(self.table, self.name)

    def open(self, item: bytes) -> Image.Image:
        return decode(item)


@dataclass(frozen=True)
class Group:
    """The rows of one split in one row group of a shard; `rows` of them, the first of which is row `start` of the split."""

    shard: Path
    number: int
    split: str
    start: int
    rows: int

    def images(self) -> Iterator[bytes]:
        """Their encoded pictures, in order."""
        with pq.ParquetFile(self.shard) as file:
            table = file.read_row_group(self.number, columns=["image", "split"])
        for data in table.filter(pc.equal(table["split"], self.split))["image"]:
            yield data.as_py()


def groups_of(table: Path, split: str) -> list[Group]:
    """Where the rows of a split lie: what can be read piece by piece, in any order."""
    found: list[Group] = []
    start = 0
    for shard in shards(table):
        with pq.ParquetFile(shard) as file:
            for number in range(file.num_row_groups):
                column = file.read_row_group(number, columns=["split"])["split"]
                if rows := pc.sum(pc.equal(column, split)).as_py() or 0:
                    found.append(Group(shard, number, split, start, rows))
                    start += rows
    return found
