"""A picture table: a directory of Parquet shards, written and read here alone, with one row group in memory at most.

Its shards are `00000.parquet`, `00001.parquet` …; their rows, one shard after the other, are the table's order. Columns: schema.py.
Where a shard ends depends on its rows: new rows change the shards that they stand in, and dvc stores the others no second time.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.errors import UserError

ROWS_PER_GROUP = 512
BYTES_PER_GROUP = 64 << 20  # big photographs: fewer rows in a group, so that a reader's memory stays bounded
ROWS_PER_SHARD = 128  # on average: a shard ends after a row whose id has a hash that is a multiple of it
GROUPS_PER_SHARD = 16  # at most
BYTES_PER_SHARD = 256 << 20  # a shard ends after the group that reaches them
SHARD = re.compile(r"(\d{5,})\.parquet")
MAKE_ANEW = "`dvc checkout` brings back the recorded one, `dvc repro` makes it anew."


@contextlib.contextmanager
def writing_rows(table: Path, schema: pa.Schema) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends one row, with a picture in column `image`, to the new table `table`.

    The same rows give the same files. A table without rows has one shard, which holds the columns. FileExistsError where there is one
    already: see artifacts.replacing.
    """
    with _writing(table, schema) as writer:
        yield writer.add


@contextlib.contextmanager
def writing_batches(table: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """As writing_rows, of many rows at once, without an object of Python for each value. They give the same files as one by one."""
    with _writing(table, schema) as writer:
        yield writer.add_batch


@contextlib.contextmanager
def _writing(table: Path, schema: pa.Schema) -> Iterator[_Writer]:
    table.mkdir(parents=True)
    writer = _Writer(table, schema)
    try:
        yield writer
        writer.finish()
    finally:
        writer.close()


class _Writer:
    def __init__(self, table: Path, schema: pa.Schema) -> None:
        self.table, self.schema = table, schema
        self.shards = 0
        self.file: pq.ParquetWriter | None = None  # the shard that is being written
        self.groups = self.bytes = 0  # of that shard
        self.rows: list[dict[str, Any]] = []  # of the next group; these or
        self.batches: list[pa.RecordBatch] = []
        self.held = self.held_bytes = 0  # rows of the next group

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        ends = _ends_shard(row["id"])
        if self._ends_group(len(row["image"]), ends):
            self._write_group(ends)

    def add_batch(self, batch: pa.RecordBatch) -> None:
        first = 0
        sizes = pc.binary_length(batch["image"]).to_pylist()
        for row, (identifier, size) in enumerate(zip(batch["id"].to_pylist(), sizes, strict=True), 1):
            ends = _ends_shard(identifier)
            if self._ends_group(size, ends):
                self.batches.append(batch.slice(first, row - first))
                self._write_group(ends)
                first = row
        if first < len(batch):
            self.batches.append(batch.slice(first))

    def _ends_group(self, size: int, ends_shard: bool) -> bool:
        self.held += 1
        self.held_bytes += size
        return ends_shard or self.held == ROWS_PER_GROUP or self.held_bytes >= BYTES_PER_GROUP

    def finish(self) -> None:
        if self.held:
            self._write_group(ends_shard=False)
        elif not self.shards:
            self._open_shard()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        self.file = None

    def _write_group(self, ends_shard: bool) -> None:
        if self.file is None or self.groups == GROUPS_PER_SHARD or self.bytes >= BYTES_PER_SHARD:
            self.close()
            self.file = self._open_shard()
        rows = pa.Table.from_pylist(self.rows, self.schema) if self.rows else pa.Table.from_batches(self.batches, self.schema)
        self.file.write_table(rows.combine_chunks())
        self.groups += 1
        self.bytes += self.held_bytes
        self.rows.clear()
        self.batches.clear()
        self.held = self.held_bytes = 0
        if ends_shard:
            self.close()

    def _open_shard(self) -> pq.ParquetWriter:
        # pictures gain nothing from a dictionary, or from minimum and maximum
        plain = [name for name in self.schema.names if name != "image"]
        path = self.table / f"{self.shards:05}.parquet"
        self.file = pq.ParquetWriter(path, self.schema, compression="zstd", use_dictionary=plain, write_statistics=plain)
        self.shards += 1
        self.groups = self.bytes = 0
        return self.file


def _ends_shard(identifier: str) -> bool:
    return int.from_bytes(hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()[:8]) % ROWS_PER_SHARD == 0


def shards(table: Path) -> list[Path]:
    """The table's files in its order. UserError where `table` is none, lacks a shard, or holds files that are no shard of it."""
    if not table.is_dir():
        raise UserError(f"{table} is not a picture table: it is {'a file' if table.exists() else 'missing'}. {MAKE_ANEW}")
    found: dict[int, Path] = {}
    foreign = []
    for path in sorted(table.iterdir()):
        if match := SHARD.fullmatch(path.name):
            found[int(match[1])] = path
        elif not path.name.startswith("."):  # such as .DS_Store
            foreign.append(path.name)
    if foreign:
        raise UserError(
            f"{table} holds {', '.join(foreign[:3])}{', …' if len(foreign) > 3 else ''},"
            f" which does not belong to a picture table. {MAKE_ANEW}"
        )
    if not found:
        raise UserError(f"{table} is not a picture table: it is empty. {MAKE_ANEW}")
    if absent := [number for number in range(max(found) + 1) if number not in found]:
        raise UserError(f"{table} lacks {', '.join(f'{number:05}.parquet' for number in absent[:3])}. {MAKE_ANEW}")
    return [found[number] for number in sorted(found)]


@contextlib.contextmanager
def _opened(shard: Path) -> Iterator[pq.ParquetFile]:
    """A shard to read from. UserError where it is broken, at its end or anywhere in what is read."""
    try:
        with pq.ParquetFile(shard) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shard} is not a readable Parquet file: {error}. {MAKE_ANEW}") from error


def read_schema(table: Path) -> pa.Schema:
    """The columns. UserError where a shard has others than the first."""
    first: pa.Schema | None = None
    for shard in shards(table):
        with _opened(shard) as file:
            schema = file.schema_arrow
        if first is None:
            first = schema
        elif not schema.equals(first):
            raise UserError(f"{shard} has other columns than the shards before it. {MAKE_ANEW}")
    return first


def row_count(table: Path, split: str | None = None) -> int:
    """How many rows the table has, or one of its splits."""
    if split is not None:
        return sum(group.rows for group in groups_of(table, split))
    count = 0
    for shard in shards(table):
        with _opened(shard) as file:
            count += file.metadata.num_rows
    return count


def read_rows(table: Path, split: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows in the table's order: of one split or of all, with all columns but the picture, or with `columns` in their order."""
    schema = read_schema(table)
    wanted = list(columns) if columns is not None else [name for name in schema.names if name != "image"]
    found = []
    for shard in shards(table):
        with _opened(shard) as file:
            rows = file.read(columns=wanted if split is None else list(dict.fromkeys([*wanted, "split"])))
        found.append((rows if split is None else rows.filter(pc.equal(rows["split"], split))).select(wanted))
    return pa.concat_tables(found)


def read_batches(table: Path, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """All rows in their order, at most `batch_size` at a time."""
    for shard in shards(table):
        with _opened(shard) as file:
            yield from file.iter_batches(batch_size=batch_size, columns=list(columns))


def read_images(table: Path, split: str) -> Iterator[bytes]:
    """The encoded pictures of one split, in the table's order."""
    for group in groups_of(table, split):
        yield from group.images()


def read_images_of(table: Path, ids: Collection[str]) -> dict[str, bytes]:
    """The encoded pictures of some rows, by id; without those that the table lacks. Row groups with none of them are left unread."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, bytes] = {}
    for shard in shards(table):
        if len(found) == len(wanted):
            break
        with _opened(shard) as file:
            for number in range(file.num_row_groups):
                here = file.read_row_group(number, columns=["id"])["id"]
                among = pc.is_in(here, value_set=wanted)
                if pc.any(among).as_py():
                    images = file.read_row_group(number, columns=["image"])["image"]
                    found |= zip(here.filter(among).to_pylist(), images.filter(among).to_pylist(), strict=True)
    return found


@dataclass(frozen=True)
class Group:
    """The rows of one split in one row group of a shard: `rows` of them, the first of which is row `start` of the split."""

    shard: Path
    number: int  # of the row group in the shard
    split: str
    start: int
    rows: int

    def images(self) -> Iterator[bytes]:
        """Their encoded pictures, in order."""
        with _opened(self.shard) as file:
            table = file.read_row_group(self.number, columns=["image", "split"])
        for data in table.filter(pc.equal(table["split"], self.split))["image"]:
            yield data.as_py()


def groups_of(table: Path, split: str) -> list[Group]:
    """Where the rows of a split lie, in the table's order: what can be read piece by piece, in any order."""
    found: list[Group] = []
    start = 0
    for shard in shards(table):
        with _opened(shard) as file:
            for number in range(file.num_row_groups):
                column = file.read_row_group(number, columns=["split"])["split"]
                if rows := pc.sum(pc.equal(column, split)).as_py() or 0:
                    found.append(Group(shard, number, split, start, rows))
                    start += rows
    return found
