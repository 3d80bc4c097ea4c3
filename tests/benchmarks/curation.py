"""Curating 20,000 and 200,000 pictures: peak memory, and images/s beside decoding alone: `python -m tests.benchmarks.curation`.

Decoding alone reads the same table and opens each picture with the same decoder, in as many processes of its own, and keeps nothing.
Every measurement is a process of its own; memory and processor time are those of it and of the processes that it starts. On a machine that
others use, compare processor time. `near`: with near-duplicates and the comparison with test pictures, which the bars leave out. Asserts
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from assets import artifacts
from assets.pictures.apart import Apart
from assets.pictures.opening import open_picture
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import read_batches, writing_rows

CHECKOUT = Path(__file__).resolve().parents[2]
ROWS = (20_000, 200_000)
SIDE, OF_CLASS = 64, 50
FLAT, SPEED = 1.3, 0.8  # the bars: memory of the larger table by that of the smaller, images/s by those of decoding alone
MEASURES = ("decoding", "curation", "near")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--only", nargs="*", choices=MEASURES, default=MEASURES)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps({"curation": _curate, "decoding": _decode, "near": _compare}[asked.measure]()))  # noqa: T201
        return
    peaks: dict[str, list[float]] = {what: [] for what in asked.only}
    for rows in asked.rows:
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder) / artifacts.SOURCE_IMAGES, rows)
            found = {}
            for what in asked.only:
                shutil.rmtree(Path(folder) / artifacts.WORK, ignore_errors=True)  # nothing is known yet
                command = [sys.executable, "-m", "tests.benchmarks.curation", "--measure", what]
                where = os.environ | {"PYTHONPATH": str(CHECKOUT)}
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=where)
                found[what] = json.loads(done.stdout.splitlines()[-1])
                peaks[what].append(found[what]["peak_mib"])
                print(  # noqa: T201
                    f"{rows:>7,} images, {what:8}: {found[what]['seconds']:6.1f} s, {found[what]['processor']:6.1f} s of processors,"
                    f" peak {found[what]['peak_mib']:.0f} MiB"
                )
            if {"decoding", "curation"} <= found.keys():
                shares = {kind: found["decoding"][kind] / found["curation"][kind] for kind in ("seconds", "processor")}
                print(  # noqa: T201
                    f"{rows:>7,} images: {shares['seconds']:.2f} of the images/s of decoding alone;"
                    f" by processor time {shares['processor']:.2f} (bar {SPEED})"
                )
    for what, of_rows in peaks.items():
        print(f"{what}: peak memory grows {max(of_rows) / min(of_rows):.2f} times (bar of curation {FLAT})")  # noqa: T201


def _curate() -> dict[str, float]:
    from assets.curated_images import stage
    from tests.settings import demo_params

    stage.nearest = lambda queries, gallery, keep: (np.zeros(len(queries), np.int64), *np.zeros((2, len(queries)), np.float32))
    settings = demo_params().curated_images.model_copy(update={"min_difference_to_test": 0.0, "near_duplicates": "ignore"})
    return _measured(lambda: stage.make_curated_images(settings))


def _compare() -> dict[str, float]:
    from assets.curated_images import stage
    from tests.settings import demo_params

    return _measured(lambda: stage.make_curated_images(demo_params().curated_images))


def _decode() -> dict[str, float]:
    def work() -> None:
        with Apart("tests.benchmarks.curation:open_alone", {"max_pixels": 100_000_000}) as apart:
            for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, 64):
                for opened in apart.map(batch["image"].to_pylist()):
                    assert not opened

    return _measured(work)


def open_alone(data: bytes, max_pixels: int) -> bytes:
    """In the process apart."""
    open_picture(data, max_pixels)
    return b""


def _measured(work: Callable[[], None]) -> dict[str, float]:
    import great_expectations as gx

    gx.get_context(mode="ephemeral")  # loaded before the clock starts
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        me = psutil.Process()
        while not ended.wait(0.1):
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, sum(each.memory_info().rss for each in (me, *me.children())))

    watching = threading.Thread(target=watch)
    watching.start()
    begun, used = time.perf_counter(), _processor()
    try:
        work()
    finally:
        ended.set()
        watching.join()
    return {"seconds": time.perf_counter() - begun, "processor": _processor() - used, "peak_mib": peak / 2**20}


def _processor() -> float:
    """Seconds of this process and of those that it started and that have ended."""
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _write(table: Path, rows: int) -> None:
    """Every picture is another drawing, so that none is a copy."""
    chance = np.random.default_rng(0)
    with writing_rows(table, IMAGES_SCHEMA) as write:
        for number in range(rows):
            fields = Image.fromarray(chance.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            fields.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "PNG", compress_level=1)
            label = f"c{number // OF_CLASS:05}"
            shared = {"group": None, "family": None, "given_split": None, "source": "made", "license": "CC0-1.0", "attribution": "made"}
            words = [f"a drawing of {label}", f"number {number}"]
            own = {"id": f"{label}/{number:07}.png", "image": buffer.getvalue(), "label": label, "class_name": label, "captions": words}
            write(shared | own)


if __name__ == "__main__":
    main()
