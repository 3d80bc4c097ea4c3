"""Curating 20,000 and 200,000 pictures: peak memory, and images/s beside decoding alone: `python -m tests.benchmarks.curation`.

Every measurement is a process of its own, so that its peak memory is its own. The comparison with test pictures is left out and timed
beside it (`--near`). Prints figures; asserts nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from assets import artifacts
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import read_batches, writing_rows

CHECKOUT = Path(__file__).resolve().parents[2]
ROWS = (20_000, 200_000)
SIDE, DISTINCT, OF_CLASS = 64, 500, 50
FLAT = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--measure", choices=["curation", "decoding", "near"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps({"curation": _curate, "decoding": _decode, "near": _compare}[asked.measure]()))  # noqa: T201
        return
    peaks = []
    for rows in asked.rows:
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder) / artifacts.SOURCE_IMAGES, rows)
            found = {}
            for what in ("decoding", "curation", "near"):
                shutil.rmtree(Path(folder) / artifacts.WORK, ignore_errors=True)  # nothing is known yet
                command = [sys.executable, "-m", "tests.benchmarks.curation", "--measure", what]
                where = os.environ | {"PYTHONPATH": str(CHECKOUT)}
                done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=where)
                found[what] = json.loads(done.stdout.splitlines()[-1])
            peaks.append(found["curation"]["peak_mib"])
            speed = {what: rows / found[what]["seconds"] for what in ("decoding", "curation")}
            share, more = speed["curation"] / speed["decoding"], found["near"]["seconds"] - found["curation"]["seconds"]
            print(  # noqa: T201
                f"{rows:>7,} images: peak {peaks[-1]:.0f} MiB; {speed['curation']:.0f} images/s, {share:.2f} of decoding alone;"
                f" comparing with test pictures takes {more:.0f} s more"
            )
    print(f"peak memory grows {max(peaks) / min(peaks):.2f} times; {FLAT} is the bar")  # noqa: T201


def _curate() -> dict[str, float]:
    from assets.curated_images import stage
    from tests.settings import demo_params

    stage.nearest = lambda queries, gallery, keep: (np.zeros(len(queries), np.int64), *np.zeros((2, len(queries)), np.float32))
    return _timed(
        lambda: stage.make_curated_images(
            demo_params().curated_images.model_copy(update={"min_difference_to_test": 0.0, "near_duplicates": "ignore"})
        )
    )


def _compare() -> dict[str, float]:
    from assets.curated_images import stage
    from tests.settings import demo_params

    return _timed(lambda: stage.make_curated_images(demo_params().curated_images))


def _decode() -> dict[str, float]:
    from assets.pictures.opening import open_picture

    def decode(data: bytes) -> int:
        return open_picture(data, 100_000_000).width

    def work() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, 64):
                list(pool.map(decode, batch["image"].to_pylist()))

    return _timed(work)


def _timed(work) -> dict[str, float]:  # type: ignore[no-untyped-def]
    import great_expectations as gx

    gx.get_context(mode="ephemeral")  # loaded before the clock starts
    begun = time.perf_counter()
    work()
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on a Mac, KiB elsewhere
    return {"seconds": time.perf_counter() - begun, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def _write(table: Path, rows: int) -> None:
    """Every picture's pixels are its own: a band of another brightness in one of 500 drawings."""
    chance = np.random.default_rng(0)
    drawings = chance.integers(0, 200, (DISTINCT, 12, 12, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for each in drawings]
    with writing_rows(table, IMAGES_SCHEMA) as write:
        for number in range(rows):
            pixels = large[number % DISTINCT].copy()
            pixels[0, :8] = np.frombuffer(number.to_bytes(24, "little"), np.uint8).reshape(8, 3)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
            label = f"c{number // OF_CLASS:05}"
            shared = {"group": None, "family": None, "given_split": None, "source": "made", "license": "CC0-1.0", "attribution": "made"}
            words = [f"a drawing of {label}", f"number {number}"]
            own = {"id": f"{label}/{number:07}.png", "image": buffer.getvalue(), "label": label, "class_name": label, "captions": words}
            write(shared | own)


if __name__ == "__main__":
    main()
