"""What new pictures cost: a folder of 10,000, then 100 more, changed or gone, through source, curation and the table.

`python -m tests.benchmarks.growth [--pictures N] [--new N]`. Each run is a process of its own. It prints how many pictures each run
decoded and embedded, its time as a share of the first run's, and the share of bytes that dvc stores anew. Shares are of what goes beyond
the stages' start-up, which is the time of a library of FEW pictures where one is new: imports, loading the model, the processes that open
pictures, checks. Processor time counts these processes too: compare that on a busy machine.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from assets import artifacts

CHECKOUT = Path(__file__).resolve().parents[2]
CLASSES, SIDE = 200, 64
FEW = 60
BAR = 0.1
ROOT = Path("data/images")
RECIPE = "mcip_rea"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        print(json.dumps(_run()))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _prepare(asked.pictures)
        start_up = _start_up()
        first = _measure("first run", start_up, None)
        for what, change in _changes(asked.pictures, asked.new):
            change()
            _measure(what, start_up, first)


def _start_up() -> dict[str, float]:
    here, few = Path.cwd(), Path("few").resolve()
    for file in [*sorted(ROOT.rglob("*.png"))[: FEW * 10 : 10], *(each for each in Path().rglob("*") if ROOT not in each.parents)]:
        if file.is_file():
            (few / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, few / file)
    os.chdir(few)
    _one_run()
    _draw(ROOT / "c000" / "new.png", 10**9)  # as none of the others
    found = _one_run()
    assert found["decoded"] == found["embedded"] == 1
    os.chdir(here)
    print(f"start-up of the stages   {found['seconds']:.1f} s, {found['processor']:.1f} s of processors")  # noqa: T201
    return found


def _changes(pictures: int, new: int) -> list[tuple[str, Callable[[], object]]]:
    old = sorted(ROOT.rglob("*.png"))
    chosen = [old[place] for place in np.random.default_rng(1).choice(len(old), 2 * new, replace=False)]
    return [
        ("nothing new", lambda: None),
        (f"{new} in two new classes", lambda: [_draw(ROOT / f"new{n % 2}" / f"{n}.png", pictures + n) for n in range(new)]),
        (
            f"{new} over all classes",
            lambda: [_draw(ROOT / f"c{n * CLASSES // new:03}" / f"new{n}.png", pictures + new + n) for n in range(new)],
        ),
        (f"{new} gone", lambda: [file.unlink() for file in chosen[:new]]),
        (f"{new} changed", lambda: [_draw(file, pictures + 2 * new + n) for n, file in enumerate(chosen[new:])]),
    ]


def _measure(what: str, start_up: dict[str, float], first: dict[str, float] | None) -> dict[str, float]:
    before = _stored()
    found = _one_run()
    now = _stored()
    share = sum(size for digest, size in now.items() if digest not in before) / sum(now.values())
    ratio = ""
    if first is not None:
        seconds, processor = ((found[kind] - start_up[kind]) / (first[kind] - start_up[kind]) for kind in ("seconds", "processor"))
        ratio = f" = {seconds:.1%} of the first run's beyond start-up; by processor time {processor:.1%} (bar {BAR:.0%})"
    print(  # noqa: T201
        f"{what:24} {found['decoded']:>6,} decoded, {found['embedded']:>6,} embedded, {found['seconds']:6.1f} s,"
        f" {found['processor']:6.1f} s of processors{ratio}; {share:.1%} of the bytes new"
        f" (of processors: source {found['source']:.1f} s, curation {found['curation']:.1f} s, table {found['table']:.1f} s)"
    )
    return found


def _one_run() -> dict[str, float]:
    command, where = [sys.executable, "-m", "tests.benchmarks.growth", "--run"], os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _processor() -> float:
    """Seconds of this process and of those that it started and that have ended."""
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _stored() -> dict[str, int]:
    """The size of each file of the two picture tables by its digest, as dvc's cache has it."""
    files = [file for table in (artifacts.SOURCE_IMAGES, artifacts.CURATED_IMAGES) if table.exists() for file in table.iterdir()]
    return {artifacts.sha256_of(file): file.stat().st_size for file in files}


def _run() -> dict[str, float]:
    import great_expectations as gx
    import lancedb

    from assets.clip import encoder
    from assets.curated_images.stage import make_curated_images
    from assets.params import read_params
    from assets.pictures.apart import Apart
    from assets.search_table.stage import publish
    from assets.source_images.stage import make_source_images

    params, _ = read_params()
    gx.get_context(mode="ephemeral")
    assert lancedb  # both are loaded before the clock starts
    decoded: list[int] = []
    embedded: list[int] = []
    looked, encode = Apart.map, encoder.encode_images

    def counting(self, pictures):
        pictures = list(pictures)
        decoded.extend([1] * len(pictures))
        return looked(self, pictures)

    def counting_too(*given, **named):
        found = encode(*given, **named)
        embedded.append(len(found))
        return found

    Apart.map, encoder.encode_images = counting, counting_too
    begun = time.perf_counter()
    times = [_processor()]
    for work in (
        lambda: make_source_images(params.source_images),
        lambda: make_curated_images(params.curated_images),
        lambda: publish(params.search_table, RECIPE),
    ):
        work()
        times.append(_processor())
    source, curation, table = (float(each) for each in np.diff(times))
    return {
        "decoded": len(decoded),
        "embedded": sum(embedded),
        "seconds": time.perf_counter() - begun,
        "processor": times[-1] - times[0],
        "source": source,
        "curation": curation,
        "table": table,
    }


def _prepare(pictures: int) -> None:
    from assets.base_clip.demo import _join_towers, _write_parts
    from assets.clip.model import save_tuned
    from tests.settings import demo_settings

    settings = demo_settings()
    settings["source_images"]["sources"] = [
        {"kind": "image_folder", "root": str(ROOT), "folders": ["label"], "license": "CC0-1.0", "attribution": "the benchmark"}
    ]
    Path("params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for number in range(pictures):
        _draw(ROOT / f"c{number % CLASSES:03}" / f"{number}.png", number)
    parts = artifacts.WORK / "parts"
    _write_parts(SIDE, parts)
    save_tuned(_join_towers(parts), parts, artifacts.model_dir(RECIPE), {"recipe": RECIPE})
    shutil.rmtree(parts)
    verdict = {"recipe": RECIPE, "against": "base", "decision": "publish", "reasons": [], "families": {}, "override_reason": None}
    artifacts.write_json(artifacts.VERDICT, verdict)


def _draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(fields).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()
