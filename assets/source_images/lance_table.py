"""A Lance dataset, or a table of a LanceDB database: the folder NAME.lance, or its address. Meaning: records.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from assets import params
from assets.addresses import check_there, is_remote, lance_options
from assets.errors import UserError
from assets.source_images.listed import Listed
from assets.source_images.records import Record, Records, list_records
from assets.source_images.table import ROWS_PER_BATCH, row_id


def list_lance(source: params.Lance) -> Listed:
    return list_records(open_lance(source.root), source)


def open_lance(root: str) -> Records:
    dataset = _dataset(root)
    name = root.rstrip("/").rpartition("/")[2]

    def read(wanted: Sequence[str]) -> Iterator[Record]:
        number = 0
        with _readable(root):
            for batch in dataset.scanner(columns=list(wanted), batch_size=ROWS_PER_BATCH, scan_in_order=True).to_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Record(row_id(name, number), row)

    def pictures(positions: Sequence[int], column: str | None) -> Iterator[Any]:
        for start in range(0, len(positions), ROWS_PER_BATCH):
            part = list(positions[start : start + ROWS_PER_BATCH])
            with _readable(root):
                if _is_blob(dataset.schema.field(column)):
                    for blob in dataset.take_blobs(column, indices=part):
                        yield None if blob is None else blob.readall()
                else:
                    yield from dataset.take(part, columns=[column])[column].to_pylist()

    return Records(dataset.schema.names, read, pictures)


def _is_blob(field: Any) -> bool:
    """Whether reading the column gives places of bytes, not bytes: as Lance marks it since 2.2, and before."""
    return getattr(field.type, "extension_name", "").startswith("lance.blob") or b"lance-encoding:blob" in (field.metadata or {})


def _dataset(root: str) -> Any:
    import lance

    folder = Path(root)
    if not is_remote(root) and not (folder / "_versions").is_dir():
        tables = sorted(path.name for path in folder.glob("*.lance")) if folder.is_dir() else []
        there = f"is a database; name one of its tables, such as {folder / tables[0]}" if tables else "is no Lance table"
        raise UserError(f"source_images.sources, root: {root} {there if folder.exists() else 'is missing'}. Allowed: a folder NAME.lance.")
    if is_remote(root):
        check_there(root, "source_images.sources, root")
    with _readable(root):
        return lance.dataset(root, storage_options=lance_options(root))


@contextlib.contextmanager
def _readable(root: str) -> Iterator[None]:
    """UserError where a file of the table is cut or gone."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{root} cannot be read as a Lance table: {error}. Write it anew, or name another.") from error
