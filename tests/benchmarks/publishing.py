"""python -m tests.benchmarks.publishing [ROWS DIMENSIONS PICTURES]: publishing ÷ plain LanceDB, and embedding ÷ the model's bare forward.

Rows/s of a first publish of ROWS vectors, with its checks, its indexes and its manifest, ÷ the same rows written by plain lancedb, with
and without the same indexes. Pictures/s of the publish's embedding of PICTURES pictures (decoding and scaling included) ÷ the forward
alone on pixels that lie ready; wanted: 0.95 or more. 50,000 × 512 and 2,000 unless told.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import torch

from assets import artifacts
from assets.clip.encoder import Encoder
from assets.params import SearchTable, read_params
from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.split import Split
from assets.pictures.table import read_batches, writing_rows
from assets.search_table.writing import CURATED, INDEXES, write_table
from tests.benchmarks.indexes import clusters
from tests.model_at_hand import model_at_hand
from tests.search_table.conftest import png
from tests.stopwatch import processor_seconds

CLASSES = 1000


def main(rows: int = 50_000, dimensions: int = 512, pictures: int = 2_000) -> None:
    settings = read_params()[0].search_table
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        model, what = model_at_hand(Path(folder))
        os.chdir(folder)
        try:
            table_rows(rows, dimensions, settings, model)
            embedding(pictures, settings, model, what)
        finally:
            os.chdir(home)


def table_rows(rows: int, dimensions: int, settings: SearchTable, model: Path) -> None:
    pictures = [png(seed) for seed in range(16)]
    ids = write_curated(rows, pictures)
    artifacts.model_dir("mcip_rea").parent.mkdir(parents=True)
    artifacts.model_dir("mcip_rea").symlink_to(model)
    vectors = clusters(rows, dimensions)
    own = spent(lambda: write_table(vectors, ids, {}, "mcip_rea", artifacts.sha256_of(model), settings))

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in read_batches(artifacts.CURATED_IMAGES, CURATED, settings.batch_size):
            part = vectors[start : start + len(batch)]
            start += len(batch)
            yield pa.record_batch(
                [*batch.columns, batch["class_name"], pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dimensions)],
                names=[*batch.schema.names, "caption", "vector"],
            )

    def plain() -> Any:
        schema = next(batches()).schema
        return lancedb.connect("plain").create_table("images", data=pa.RecordBatchReader.from_batches(schema, batches()), schema=schema)

    made: list[Any] = []
    raw = spent(lambda: made.append(plain()))

    def index() -> None:
        for column, kind in INDEXES.items():
            if kind == "FTS":
                made[0].create_index(column, config=lancedb.index.FTS())
            else:
                made[0].create_index(column, config=getattr(lancedb.index, {"BTREE": "BTree", "BITMAP": "Bitmap"}[kind])())
        if rows >= settings.index_from_rows:
            made[0].create_index("vector", config=lancedb.index.IvfSq(distance_type="cosine"))

    indexed = spent(index)
    both = raw[0] + indexed[0], raw[1] + indexed[1]
    show(f"{rows:,} × {dimensions}: published at {rows / own[0]:,.0f} rows/s, {1e6 * own[1] / rows:.0f} s of processor time a million rows")
    for name, other in (("plain lancedb with the same indexes", both), ("plain lancedb without indexes", raw)):
        show(f"  ÷ {name}: {other[0] / own[0]:.2f} × its rows/s; {own[1] / other[1]:.2f} × its processor time")


def embedding(count: int, settings: SearchTable, model: Path, what: str) -> None:
    write_curated(count, [png(seed) for seed in range(count)])
    encoder = Encoder(model, device=settings.device, precision=settings.precision, batch_size=settings.batch_size)
    assert encoder.model is not None  # loaded before the clock starts
    pictures = Split(artifacts.CURATED_IMAGES, "library")
    opened = [pictures.open(item) for item in itertools.islice(pictures.items(), settings.batch_size)]
    pixels = torch.stack([encoder.preprocess(picture) for picture in opened])
    pixels = pixels.to(encoder.device)

    def forward() -> None:
        with torch.inference_mode():
            for start in range(0, count, settings.batch_size):
                encoder.model.encode_image(pixels[: min(settings.batch_size, count - start)], normalize=True).cpu()

    spent(lambda: encoder.images_now(pictures))  # warm
    bare, own, again = spent(forward), spent(lambda: encoder.images_now(pictures)), spent(forward)
    bare = (bare[0] + again[0]) / 2, (bare[1] + again[1]) / 2
    show(
        f"{count:,} pictures by {what} on {encoder.device}: embedded at {count / own[0]:,.0f} pictures/s, {bare[0] / own[0]:.2f} × the bare"
        f" forward's (wanted: 0.95); {own[1] / bare[1]:.2f} × its processor time"
    )


def write_curated(count: int, pictures: list[bytes]) -> list[str]:
    names = [field.name for field in CURATED_SCHEMA]
    with artifacts.replacing(artifacts.CURATED_IMAGES) as temporary, writing_rows(temporary, CURATED_SCHEMA) as write:
        for number in range(count):
            row = dict.fromkeys(names) | {
                "id": f"{number:08}",
                "image": pictures[number % len(pictures)],
                "label": f"u{number % CLASSES}",
                "class_name": f"class {number % CLASSES}",
                "captions": [f"a picture of class {number % CLASSES}"],
                "source": f"vendor{number % 8}",
                "split": "library",
                "license": "CC0-1.0",
                "attribution": "nobody",
                "width": 48,
                "height": 40,
                "sha256": f"{number:064x}",
            }
            write(row)
    return [f"{number:08}" for number in range(count)]


def spent(work: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, seconds of processor time)"""
    wall, processor = time.perf_counter(), processor_seconds()
    work()
    return time.perf_counter() - wall, processor_seconds() - processor


def show(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
