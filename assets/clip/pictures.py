"""Rows and pictures of the curated table, one split at a time, a row group in memory at most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def read_rows(path: Path, split: str) -> pa.Table:
    """The rows of one split without their pictures, in the table's order."""
    columns = [name for name in pq.read_schema(path).names if name != "image"]
    return pq.read_table(path, columns=columns, filters=pc.field("split") == split)


def read_images(path: Path, split: str) -> Iterator[bytes]:
    """The encoded pictures of one split, in the table's order."""
    with pq.ParquetFile(path) as file:
        for group in row_groups(file, split):
            yield from (data for _, data in pictures(file, group, split))


def row_groups(file: pq.ParquetFile, split: str) -> list[int]:
    """The row groups that hold rows of the split."""
    return [group for group in range(file.num_row_groups) if split_mask(file, group, split).true_count]


def split_mask(file: pq.ParquetFile, group: int, split: str) -> pa.BooleanArray:
    """Which rows of a row group are of the split."""
    return pc.equal(file.read_row_group(group, columns=["split"])["split"], split).combine_chunks()


def pictures(file: pq.ParquetFile, group: int, split: str) -> Iterator[tuple[int, bytes]]:
    """(number within the group's rows of the split, encoded picture)."""
    table = file.read_row_group(group, columns=["image", "split"])
    wanted = table.filter(pc.equal(table["split"], split))
    for within, data in enumerate(wanted["image"]):
        yield within, data.as_py()
