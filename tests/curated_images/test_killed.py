"""Curation that is killed at any moment: the next run makes the same tables to the byte, and decodes nothing that is known a second time.

`make test` kills it a few times; `CURATION_KILLS=20 python -m pytest tests/curated_images/test_killed.py` as often as one likes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets import artifacts
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import writing_rows

KILLS = int(os.environ.get("CURATION_KILLS", "4"))
PICTURES, CLASSES, BATCH = 400, 20, 16

# One process loads the libraries and forks each run, so that a run begins at once. Prints how often each picture was decoded, and what
# was written, of a run that nobody disturbs and of the last one in a folder where runs were killed.
SCRIPT = """
import hashlib, json, os, random, signal, sys, time
from pathlib import Path
import faiss, great_expectations, polars  # before the fork
from assets import artifacts
from assets.curated_images import expectations, stage
from assets.pictures.apart import Apart
from tests.settings import demo_params

assert faiss and great_expectations and polars and expectations
stage.ROWS_PER_BATCH = int(sys.argv[4])
settings = demo_params().curated_images
look_at = Apart.map

def curate(folder):
    os.chdir(folder)
    decoded = os.open("decoded.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def noted(apart, pictures):
        pictures = list(pictures)
        for data in pictures:
            os.write(decoded, (hashlib.sha256(data).hexdigest() + "\\n").encode())
        return look_at(apart, pictures)

    Apart.map = noted
    stage.make_curated_images(settings)

def start(folder):
    if child := os.fork():
        return child
    try:
        curate(folder)
        os._exit(0)
    except BaseException as problem:
        print(repr(problem), file=sys.stderr, flush=True)
        os._exit(1)

def found(folder):
    files = [path for path in Path(folder, artifacts.CURATED).rglob("*") if path.is_file()]
    tables = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"decoded": Path(folder, "decoded.txt").read_text().split(), "tables": tables}

undisturbed, killed, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
begun = time.monotonic()
assert os.waitpid(start(undisturbed), 0)[1] == 0
seconds = time.monotonic() - begun
chance, came_too_late = random.Random(0), 0
for kill in range(kills):
    child = start(killed)
    time.sleep(seconds * (kill + chance.random()) / kills)
    os.kill(child, signal.SIGKILL)
    came_too_late += os.waitpid(child, 0)[1] == 0
last = start(killed)
assert os.waitpid(last, 0)[1] == 0
print(json.dumps([found(undisturbed), found(killed), came_too_late]))
"""


def write_source(folder: Path) -> None:
    table = folder / artifacts.SOURCE_IMAGES
    table.parent.mkdir(parents=True)
    with writing_rows(table, IMAGES_SCHEMA) as write:
        for number in range(PICTURES):
            fields = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(fields).resize((96, 96), Image.Resampling.BICUBIC).save(stream, "PNG")
            image = b"broken" * number if number % 50 == 7 else stream.getvalue()
            label = f"c{number // (PICTURES // CLASSES):02}"
            shared = {"group": None, "family": None, "given_split": None, "source": "made", "license": "CC0-1.0", "attribution": "made"}
            own = {"id": f"{label}/{number:04}.png", "image": image, "label": label, "class_name": label, "captions": [f"number {number}"]}
            write(shared | own)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes that it forks")
def test_the_next_run_makes_the_same_tables_and_does_no_finished_work_again(tmp_path: Path, checkout: Path):
    for name in ("undisturbed", "killed"):
        write_source(tmp_path / name)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "undisturbed"), str(tmp_path / "killed"), str(KILLS), str(BATCH)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    undisturbed, killed, came_too_late = json.loads(done.stdout.splitlines()[-1])
    assert came_too_late < KILLS
    assert len(undisturbed["tables"]) >= 5
    assert killed["tables"] == undisturbed["tables"], "also: nothing half-written is left beside them"
    once = set(undisturbed["decoded"])
    assert len(once) == len(undisturbed["decoded"]) == PICTURES
    assert set(killed["decoded"]) == once
    assert len(killed["decoded"]) <= PICTURES + KILLS * 2 * BATCH, "a killed run loses the batch it was at and the next, no more"
