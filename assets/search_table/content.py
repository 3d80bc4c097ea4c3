"""What a table holds, in hashes: a publish finds by them which rows differ, and the manifest names the whole by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from assets.search_table.table import METADATA, VECTOR

if TYPE_CHECKING:
    from lance import LanceDataset

VECTOR_STEP = 1e-4  # vectors are compared and hashed in whole steps of this size: fp32 noise below it seldom shows
DESCRIBED = [name for name in METADATA.names if name not in ("image", "model")]  # sha256 stands for the picture
_encoded = json.JSONEncoder(ensure_ascii=False).encode  # one for all rows: json.dumps would make one for each
PRINTS = pa.schema([("id", pa.string()), ("sha256", pa.string()), ("words", pa.binary(32)), ("vector", pa.binary(32))])


def prints_of(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """One row of hashes for each row of `batches`, sorted by id; they need the columns DESCRIBED and `vector`."""
    found = []
    for batch in batches:
        described = {name: batch[name].to_pylist() for name in DESCRIBED}
        flat = batch[VECTOR].flatten().to_numpy(zero_copy_only=False)
        steps = np.rint(flat / np.float32(VECTOR_STEP)).astype("<i2").reshape(len(batch), -1)
        words = [hashlib.sha256(_encoded(row).encode()).digest() for row in zip(*described.values(), strict=True)]
        vectors = [hashlib.sha256(row.tobytes()).digest() for row in steps]
        columns = [described["id"], described["sha256"], words, vectors]
        found.append(pa.record_batch([pa.array(column, field.type) for column, field in zip(columns, PRINTS, strict=True)], schema=PRINTS))
    return pa.Table.from_batches(found, PRINTS).sort_by("id")


def prints_of_dataset(dataset: LanceDataset, batch_size: int, fragments: Iterable[Any] | None = None) -> pa.Table:
    """Those of a version that is there, or of some of its fragments. Its pictures are not read."""
    scanner = dataset.scanner(
        columns=[*DESCRIBED, VECTOR], batch_size=batch_size, fragments=None if fragments is None else list(fragments), scan_in_order=True
    )
    return prints_of(scanner.to_batches())


def hashes(prints: pa.Table) -> dict[str, str]:
    """What identifies these rows as a whole, in whatever order a table holds them."""
    images, words, vectors = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for batch in prints.to_batches():
        for key, sha256 in zip(batch["id"].to_pylist(), batch["sha256"].to_pylist(), strict=True):
            images.update(f"{key}\0{sha256}\0".encode())
        words.update(b"".join(batch["words"].to_pylist()))
        vectors.update(b"".join(batch["vector"].to_pylist()))
    return {
        "images_sha256": images.hexdigest(),
        "metadata_sha256": words.hexdigest(),
        f"vectors_sha256_in_steps_of_{VECTOR_STEP:g}": vectors.hexdigest(),
    }


def missing_from(these: pa.Table, others: pa.Table) -> list[str]:
    """The ids of `these` whose row is not, or not the same, among `others`; sorted."""
    import polars as pl

    one, other = (pl.from_arrow(table.combine_chunks()) for table in (these, others))
    assert isinstance(one, pl.DataFrame) and isinstance(other, pl.DataFrame)
    return one.join(other, on=PRINTS.names, how="anti", maintain_order="left")["id"].to_list()
