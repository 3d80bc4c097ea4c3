"""A copy of the checkout with a tiny corpus of real picture files, and the commands a user types in it.

Every stage runs as in the demo, with few pictures and single epochs. The tests decide what is then looked at.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from PIL import Image, ImageDraw

from assets.params import Params, read_params
from tests.settings import demo_settings, demo_text

COLORS = {"red": (214, 40, 40), "blue": (40, 80, 214)}
SHAPES = ("circle", "square", "triangle")
FORMATS = ("png", "jpg", "webp", "gif", "bmp", "tiff", "png")  # one picture of each a class
CLASSES = [f"{color}_{shape}" for color in COLORS for shape in SHAPES]
LIBRARY = ("holiday.jpg", "icon.png")  # straight in the folder: searched, never trained on

# One row of each kind: without captions and with them; the text tower alone, and with its geometry kept. A row more runs the same code.
IMAGE_TOWERS, TEXT_TOWERS, MEASURED = ("gpr", "mcip"), ("mcip_rea", "onespace"), ("base", "mcip", "mcip_rea", "onespace")
DEMO_ROWS = demo_settings()["recipes"]

SHORT = {"steps": 1, "epochs": 1, "min_validation_pictures": 1, "batch_size": 8, "device": "cpu"}

TINY: dict[str, Any] = {
    "source_images": {
        "sources": [{"kind": "image_folder", "root": "data/images", "folders": ["label"], "license": "unknown", "attribution": "unknown"}]
    },
    # with seed 0 the hash leaves two classes for test and four that train, each with pictures held out
    "curated_images": {"test_fraction": 0.71, "validation_classes": 0.0, "validation_pictures": 0.2},
    "base_clip": {
        "image_size": 32,
        "steps": 1,
        "epochs": 1,
        "min_validation_pictures": 1,
        "batch_size": 8,
        "device": "cpu",
        "unlocked_groups": 2,
    },
    "pseudo_captions": {"top_k": 2, "device": "cpu"},
    "recipes": {
        "image_tower": {name: DEMO_ROWS["image_tower"][name] for name in IMAGE_TOWERS},
        "text_tower": {name: DEMO_ROWS["text_tower"][name] for name in TEXT_TOWERS},
        "measured": list(MEASURED),
    },
    "image_tower": {**SHORT, "unlocked_groups": 2},
    "text_tower": {**SHORT},
    "evaluation": {"knn_k": 3, "bootstrap_samples": 100, "device": "cpu"},
    "report": {"queries": 2, "top_k": 3, "worst_failures": 2},
    "promotion": {"pairs": [["mcip_rea", "mcip"]], "bootstrap_samples": 100, "override_reason": "a pulse, not a result"},
    "search_table": {"device": "cpu"},
}


def draw(label: str, size: int, chance: random.Random) -> Image.Image:
    color, shape = label.split("_")
    picture = Image.new("RGB", (size, size), tuple(chance.randint(225, 255) for _ in range(3)))
    left, top = chance.randint(2, size // 4), chance.randint(2, size // 4)
    right, bottom = size - chance.randint(2, size // 4), size - chance.randint(2, size // 4)
    pen, fill = ImageDraw.Draw(picture), tuple(min(255, max(0, c + chance.randint(-25, 25))) for c in COLORS[color])
    if shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=fill)
    elif shape == "square":
        pen.rectangle((left, top, right, bottom), fill=fill)
    else:
        pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=fill)
    return picture


def make_pictures(root: Path) -> None:
    """42 pictures of six classes with captions, two library pictures, one copy of another, one broken file, a class of one picture."""
    chance = random.Random(0)
    captions = []
    for label in CLASSES:
        (root / label).mkdir()
        for number, suffix in enumerate(FORMATS):
            path = root / label / f"{number}.{suffix}"
            draw(label, 40 + number, chance).save(path)
            color, shape = label.split("_")
            captions.append((path.relative_to(root), chance.choice([f"{color} thing", f"something {color}", f"{shape} shape"])))
    for name in LIBRARY:
        draw("red_circle", 60, chance).save(root / name)
    shutil.copy(root / "red_circle" / "0.png", root / "red_circle" / "copy.png")
    (root / "red_circle" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture after all")
    (root / "lonely").mkdir()
    draw("blue_square", 45, chance).save(root / "lonely" / "0.png")
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "caption"), *captions])


class Project:
    """A copy of the checkout with pictures of its own, and the commands a user types in it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(home),
            "HF_HUB_OFFLINE": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def run(self, *command: str, cwd: Path | None = None, code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        told = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == code, f"{' '.join(command)} left with {done.returncode}:\n{told[-6000:]}"
        return done.stdout if code == 0 else told

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, code=code)

    def python(self, script: str, cwd: Path | None = None) -> str:
        return self.run(sys.executable, "-c", script, cwd=cwd)

    @contextmanager
    def repo(self) -> Iterator[Repo]:
        """dvc in this process, as its commands find it in the folder: starting them takes longer than most answers."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            with Repo() as repo:
                yield repo

    def status(self) -> dict:
        """What `dvc status --json` prints."""
        with self.repo() as repo:
            return repo.status()

    def would_run(self) -> set[str]:
        """Stages that `dvc repro` would have to look at: the changed ones and what depends on them."""
        with self.repo() as repo:
            stale = set(repo.status())
            graph = repo.index.graph  # from a stage to those it depends on
            upstream = {stage.addressing: {each.addressing for each in graph.successors(stage)} for stage in graph}
        while more := {address for address, needed in upstream.items() if stale & needed} - stale:
            stale |= more
        return stale

    def repro(self, *targets: str) -> set[str]:
        """`dvc repro`; returns the addresses of the stages that ran."""
        return set(re.findall(r"^Running stage '([^']+)'", self.dvc("repro", *targets), re.MULTILINE))

    def git(self, *arguments: str) -> str:
        return self.run("git", "-c", "user.name=Pulse", "-c", "user.email=pulse@localhost", *arguments)

    def change(self, section: str, **settings: object) -> None:
        file = self.folder / "params.yaml"
        params = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert settings.keys() <= params[section].keys()
        params[section] |= settings
        file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def settings(self) -> Params:
        return read_params(self.folder / "params.yaml")[0]

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text(encoding="utf-8"))

    def table(self):
        import lancedb

        return lancedb.connect(self.folder / "data" / "lancedb").open_table("images").to_arrow()


def copy_checkout(checkout: Path, folder: Path) -> None:
    """What git knows of the checkout, or would take in, without what the pipeline made."""
    wanted = ("assets", "orchestration", "data", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "Makefile")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *wanted]
    listed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (checkout / name).is_file() and not name.startswith("data/report"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / name, folder / name)
    (folder / "params.yaml").write_text(demo_text(), encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def copy_project(project: Path, folder: Path) -> None:
    """A project with all that it made. Large files become hard links: dvc and the stages replace files, and write in none but dvc.lock."""

    def copy(source: str, target: str) -> None:
        if Path(source).stat().st_size > 1 << 20:
            os.link(source, target)
        else:
            shutil.copy2(source, target)

    shutil.copytree(project, folder, symlinks=True, copy_function=copy)
