"""Loading training pictures alone: memory over 10,000, 50,000 and 200,000 of them, and images/s: `python -m tests.benchmarks.data_loading`.

Every measurement is a process of its own, so that its peak memory is its own. Prints figures; asserts nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from assets.pictures.table import writing_rows
from assets.training import data

ROWS = (10_000, 50_000, 200_000)
SIDE, STORED, BATCH = 64, 72, 128  # pixels, pixels, images: the demo's
DISTINCT = 500  # drawn pictures; rows repeat them, each with its own bytes
FLAT = 1.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--measure", nargs=2, metavar=("TABLE", "KEEP"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(_measure(Path(asked.measure[0]), int(asked.measure[1]))))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as folder:
        for keep, what in (
            (0, "streaming, decoding every epoch"),
            (data.KEPT_BYTES, "as in training, decoded pictures kept as far as their share goes"),
        ):
            print(f"{what}:")  # noqa: T201
            peaks = []
            for rows in asked.rows:
                table = Path(folder) / str(rows)
                if not table.exists():
                    _write(table, rows)
                command = [sys.executable, "-m", "tests.benchmarks.data_loading", "--measure", str(table), str(keep)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                peaks.append(found["peak_mib"])
                print(  # noqa: T201
                    f"  {rows:>7,} images: peak {found['peak_mib']:.0f} MiB, of which {found['kept_mib']:.0f} kept pictures;"
                    f" {found['images_per_second']:.0f} images/s"
                )
            verdict = "flat" if max(peaks) <= FLAT * min(peaks) else "NOT flat"
            print(f"  {min(peaks):.0f} to {max(peaks):.0f} MiB: {verdict} within 10 %")  # noqa: T201


def _measure(table: Path, keep: int) -> dict[str, float]:
    """One epoch of batches, which nothing uses."""
    data.KEPT_BYTES = keep
    kept: dict[int, np.ndarray] = {}
    begun, images = time.perf_counter(), 0
    loading = data.training_batches(
        table,
        "train",
        batch_size=BATCH,
        size=STORED,
        generator=torch.Generator().manual_seed(0),
        kept=kept,
        skip=0,
        classes=None,
        images_per_class=None,
    )
    for rows, _ in data.prefetched(loading, depth=2):
        images += len(rows)
    seconds = time.perf_counter() - begun
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on a Mac, KiB elsewhere
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {
        "peak_mib": peak_mib,
        "kept_mib": sum(pixels.nbytes for pixels in kept.values()) / 2**20,
        "images_per_second": images / seconds,
    }


def _write(table: Path, rows: int) -> None:
    chance = np.random.default_rng(0)
    pictures = []
    for _ in range(DISTINCT):
        buffer = io.BytesIO()
        blocks = chance.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("split", pa.string())])
    with writing_rows(table, schema) as write:
        for row in range(rows):
            # bytes after a PNG's end are ignored: every row is another one
            write({"id": str(row), "image": pictures[row % DISTINCT] + row.to_bytes(4, "little"), "split": "train"})


if __name__ == "__main__":
    main()
