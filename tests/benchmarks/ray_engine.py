"""Curation and embedding here against a Ray cluster on the same cores: images/s, memory, and whether the results are the same bytes.

`python -m tests.benchmarks.ray_engine --rows 200000`. Every measurement is a process of its own; the cluster starts and ends within it, and
its start is timed apart. On one machine the engine can only cost: it sends every picture to another process. A worker's number of threads
changes how a batch of a few pictures is rounded, so embeddings may differ by less than 1e-6. Prints figures; asserts nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from assets import artifacts, engine
from assets.params import LocalEngine, RayEngine
from tests.benchmarks.curation import CHECKOUT, _write

SECONDS_BETWEEN_LOOKS = 0.5
MODEL = Path("model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "ENGINE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        what, where = asked.measure
        print(json.dumps(_measured({"curation": _curate, "embedding": _embed}[what], where)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        _write(Path(folder) / artifacts.SOURCE_IMAGES, asked.rows)
        _write_model(Path(folder) / MODEL)
        for what in ("curation", "embedding"):
            results = []
            for where in ("ray", "local"):
                shutil.rmtree(Path(folder) / artifacts.WORK, ignore_errors=True)  # nothing is known yet
                command = [sys.executable, "-m", "tests.benchmarks.ray_engine", "--measure", what, where]
                environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "RAY_USAGE_STATS_ENABLED": "0"}
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
                found = json.loads(done.stdout.splitlines()[-1])
                results.append(found["result"])
                print(  # noqa: T201
                    f"{what:>9} of {asked.rows:,} images, {where:>5}: {asked.rows / found['seconds']:.0f} images/s,"
                    f" {found['processor']:.0f} s of processor time, peak {found['own_mib']:.0f} MiB in this process,"
                    f" {found['all_mib']:.0f} MiB in all"
                    + (f"; the cluster took {found['start']:.0f} s to start" if where == "ray" else "")
                )
            same = "the same bytes" if len(set(results)) == 1 else "NOT the same bytes"
            if what == "embedding":
                one, other = (np.load(Path(folder) / f"{where}.npy") for where in ("ray", "local"))
                same += f", the largest difference of a value is {np.abs(one - other).max():.1e}"
            print(f"{what:>9}: the results are {same}")  # noqa: T201


def _curate(where: engine.Engine) -> str:
    from assets.curated_images.stage import make_curated_images
    from tests.settings import demo_params

    settings = demo_params().curated_images.model_copy(update={"min_difference_to_test": 0.0, "near_duplicates": "ignore"})
    make_curated_images(settings, None, where)
    return artifacts.sha256_of(artifacts.CURATED)


def _embed(where: engine.Engine) -> str:
    import torch

    from assets.clip.encoder import Encoder
    from assets.pictures.split import Split

    torch.set_num_threads(os.cpu_count() or 1)
    encoder = Encoder(MODEL, device="cpu", precision="fp32", engine=where)
    vectors = np.concatenate([encoder.images(Split(artifacts.CURATED_IMAGES, split)) for split in ("train", "validation", "test")])
    np.save("ray.npy" if where.remote else "local.npy", vectors)
    return hashlib.sha256(vectors.tobytes()).hexdigest()


def _measured(work, where: str) -> dict[str, object]:  # type: ignore[no-untyped-def]
    cores = os.cpu_count() or 1
    ray = {"kind": "ray", "address": "local", "workers": cores, "cpus": 1, "retries": 0, "patience_seconds": 600.0}
    settings = RayEngine.model_validate(ray) if where == "ray" else LocalEngine(kind="local")
    with _watched() as peaks, engine.opened(settings) as opened:
        begun = time.perf_counter()
        if opened.remote:
            opened.has_accelerators()
        start = time.perf_counter() - begun
        begun = time.perf_counter()
        result = work(opened)
        seconds = time.perf_counter() - begun
        time.sleep(2 * SECONDS_BETWEEN_LOOKS)
    return {"seconds": seconds, "start": start, "result": result, **peaks}


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Peak memory of this process and of all below it, which is theirs alone, in MiB; the processor time of all."""
    own, peaks, ended = psutil.Process(), {"own_mib": 0.0, "all_mib": 0.0, "processor": 0.0}, threading.Event()
    spent: dict[int, float] = {}

    def look() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            sizes = []
            for each in [own, *own.children(recursive=True)]:
                try:
                    memory, times = each.memory_info(), each.cpu_times()
                except psutil.Error:
                    continue
                sizes.append((memory.rss - getattr(memory, "shared", 0)) / 2**20)
                spent[each.pid] = times.user + times.system
            peaks["own_mib"], peaks["all_mib"] = max(peaks["own_mib"], sizes[0]), max(peaks["all_mib"], sum(sizes))
            peaks["processor"] = sum(spent.values())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _write_model(directory: Path) -> None:
    """The demo's two towers, its image tower's weights from ImageNet."""
    from assets.base_clip.demo import _join_towers, _write_parts
    from assets.clip.model import save_weights

    _write_parts(64, directory)
    save_weights(_join_towers(directory), directory)


if __name__ == "__main__":
    main()
