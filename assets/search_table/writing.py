"""Replace the LanceDB table in one step: readers see the old rows until all new ones are there, also where a run is killed.

Which model made the vectors is the stage's concern; this module imports no torch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS, IvfSq

from assets import artifacts
from assets.errors import UserError
from assets.pictures.table import read_batches
from assets.progress import track
from assets.search_table.table import DISTANCE, METADATA, VECTOR, connect, table_schema

if TYPE_CHECKING:
    from lancedb.table import Table

LOCK = artifacts.WORK / "search_table.lock"
VECTOR_STEP = 1e-4  # vectors are hashed in whole steps of this size: fp32 noise below it seldom shows


def write_table(
    vectors: np.ndarray, ids: list[str], left_out: set[str], model: str, batch_size: int, index_from_rows: int
) -> dict[str, Any]:
    """Publish the curated rows but those `left_out`; returns what identifies the table. vectors: float32 [N, d], in the order of all `ids`.

    The version that this one replaces stays on disk until the next call begins, for readers that hold it open. Indexes follow the rows:
    between the two, a full-text query finds no index and a vector query is exact.
    """
    with _only_publisher(), _named_full_disk():
        published = np.array([image not in left_out for image in ids])
        ids = [image for image in ids if image not in left_out]
        table = _replace_rows(vectors, published, model, batch_size)
        for column in ("caption", "captions"):
            table.create_index(column, config=FTS())
        if len(ids) >= index_from_rows:
            # 8-bit scalars: with refining, recall@10 of 0.98 and more where the default IVF_PQ has 0.5, and any dimension will do
            table.create_index(VECTOR, config=IvfSq(distance_type=DISTANCE))
        return {
            "rows": len(ids),
            "dimension": vectors.shape[1],
            "distance": DISTANCE,
            **_content(table, ids, batch_size),
            "indexes": dict(sorted((index.columns[0], index.index_type) for index in table.list_indices())),
            "columns": {field.name: str(field.type) for field in table.schema},
        }


@contextlib.contextmanager
def _only_publisher() -> Iterator[None]:
    """One publisher at a time: clearing leftovers would take away what another one is still writing."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("another process is publishing the table right now. Run search_table again when it has finished.") from None
        yield


@contextlib.contextmanager
def _named_full_disk() -> Iterator[None]:
    """lancedb wraps a full disk in an error of its own; give it back the form that the command line explains."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(artifacts.LANCEDB)) from error
        raise


def _replace_rows(vectors: np.ndarray, published: np.ndarray, model: str, batch_size: int) -> Table:
    database = connect()
    exists = _clear_leftovers(database)
    schema = table_schema(vectors.shape[1])
    rows = pa.RecordBatchReader.from_batches(schema, _rows(vectors, published, model, schema, batch_size))
    return database.create_table(artifacts.TABLE_NAME, data=rows, mode="overwrite" if exists else "create")


def _clear_leftovers(database: lancedb.DBConnection) -> bool:
    """Keep the visible version alone: drop those before it and what killed runs left. False where there is no table.

    Done before publishing, so that a reader of the version that is about to be replaced is not cut off.
    """
    try:
        table = database.open_table(artifacts.TABLE_NAME)
    except ValueError:
        if artifacts.TABLE_NAME in database.list_tables().tables:  # half created: listed, never visible
            database.drop_table(artifacts.TABLE_NAME)
        return False
    table.to_lance().cleanup_old_versions(timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False)
    return True


def _rows(vectors: np.ndarray, published: np.ndarray, model: str, schema: pa.Schema, batch_size: int) -> Iterator[pa.RecordBatch]:
    columns = [name for name in METADATA.names if name not in ("caption", "model")]
    batches = track(
        read_batches(artifacts.CURATED_IMAGES, columns, batch_size), -(-len(vectors) // batch_size), "writing the table", "batches"
    )
    start = 0
    for every in batches:
        own, start = slice(start, start + len(every)), start + len(every)
        batch = every.filter(pa.array(published[own]))
        wordings = zip(batch["captions"].to_pylist(), batch["class_name"].to_pylist(), strict=True)
        values = {name: batch[name].cast(schema.field(name).type) for name in columns}
        values["caption"] = pa.array([captions[0] if captions else class_name for captions, class_name in wordings], pa.string())
        values["model"] = pa.array([model] * len(batch), pa.string())
        values[VECTOR] = pa.FixedSizeListArray.from_arrays(vectors[own][published[own]].ravel(), vectors.shape[1])
        yield pa.record_batch([values[name] for name in schema.names], schema=schema)


def _content(table: Table, ids: list[str], batch_size: int) -> dict[str, str]:
    """Hashes that identify the table's content, read back from it; raises where it does not hold `ids`, in that order, and no others."""
    found: list[str] = []
    pairs: list[str] = []
    words, vectors = hashlib.sha256(), hashlib.sha256()
    described = [name for name in METADATA.names if name not in ("image", "model")]
    for batch in table.to_lance().to_batches(columns=[*described, VECTOR], batch_size=batch_size, scan_in_order=True):
        for row in batch.select(described).to_pylist():
            found.append(row["id"])
            pairs.append(f"{row['id']}\0{row['sha256']}\0")
            words.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        flat = batch[VECTOR].flatten().to_numpy()
        vectors.update(np.rint(flat / np.float32(VECTOR_STEP)).astype("<i2").tobytes())
    if found != ids or table.count_rows() != len(ids):
        raise UserError(
            f"the table in {artifacts.LANCEDB} holds {len(found)} rows ({len(set(found))} ids) after writing {len(ids)}: something else has"
            f" written to it meanwhile. Run `dvc repro --single-item search_table` again."
        )
    return {
        "images_sha256": hashlib.sha256("".join(sorted(pairs)).encode()).hexdigest(),
        "metadata_sha256": words.hexdigest(),
        f"vectors_sha256_in_steps_of_{VECTOR_STEP:g}": vectors.hexdigest(),
    }
