"""A pipeline of tiny real stages in a project of its own, for what does not depend on what the stages do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from dagster import (
    AssetCheckEvaluation,
    AssetSelection,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    MetadataValue,
    RetryPolicy,
    in_process_executor,
    materialize,
)
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dvc.cli import main
from dvc.repo import Repo

from orchestration.record import asset_key, report
from orchestration.sensors import clear_up
from orchestration.stage_assets import outside_assets, read_pipeline, stage_asset
from tests.settings import demo_text

PIPELINE = """\
stages:
  words:
    desc: A file of words, and one that nothing reads.
    cmd: python assets/words/run.py
    params: [source_images.sources]
    deps: [assets/words, raw.txt]
    outs: [data/words.txt, data/unread.txt]
    meta: {group: data, kinds: [text]}
  copy:
    desc: The words for ${item.recipe}.
    matrix: {recipe: [a, b]}
    cmd: python assets/copy/run.py ${item.recipe}
    params: [curated_images.seed]
    deps: [assets/copy, data/words.txt]
    outs:
      - data/copy_${item.recipe}.txt
    meta: {group: training, kinds: [text], pool: compute}
  both:
    desc: Both copies.
    cmd: cat data/copy_a.txt data/copy_b.txt > data/both.txt
    deps: [data/copy_a.txt, data/copy_b.txt]
    outs: [data/both.txt]
    meta: {group: serving, kinds: [text]}
"""

WORDS = """\
import logging, os, time
from pathlib import Path

from assets import progress
from assets.errors import Unreachable, UserError

logging.basicConfig(level=logging.INFO)
with progress.attached():
    with open("ran.txt", "a") as file:
        file.write("words\\n")
    Path("pid.tmp").write_text(str(os.getpid()))
    os.replace("pid.tmp", "pid.txt")
    while Path("wait").exists():
        time.sleep(0.05)
    if Path("fail").exists():
        raise (Unreachable if Path("unreachable").exists() else UserError)(Path("fail").read_text())
    logging.getLogger("assets.words").info("a line of the stage's log")
    Path("data/words.txt").write_text(Path("raw.txt").read_text().upper())
    Path("data/unread.txt").write_text(Path("raw.txt").read_text()[::-1] if "reverse" in Path(__file__).read_text()[-9:] else "")
    for speed in (1.0, 2.5):
        progress.report(words=len(Path("raw.txt").read_text().split()), images_per_second=speed)
"""
COPY = """\
import sys, yaml
from pathlib import Path

seed = yaml.safe_load(Path("params.yaml").read_text())["curated_images"]["seed"]
Path(f"data/copy_{sys.argv[1]}.txt").write_text(Path("data/words.txt").read_text() + f"{sys.argv[1]} {seed}\\n")
"""


def nothing(address: str) -> dict[str, MetadataValue]:
    return {}


def nothing_wrong(address: str) -> list[AssetCheckEvaluation]:
    return []


class Toy:
    """The project, and what one does with it by either door."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(checkout),
            "DVC_NO_ANALYTICS": "1",
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def dvc(self, *arguments: str) -> None:
        """The command line of dvc, in this process, which saves its start; the stages are processes of their own."""
        assert main([*arguments, "--quiet"]) == 0, arguments

    def git(self, *arguments: str) -> str:
        return self.run("git", "-c", "user.name=Toy", "-c", "user.email=toy@localhost", *arguments)

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")

    def read(self, path: str) -> str:
        return (self.folder / path).read_text(encoding="utf-8")

    def replace(self, path: str, old: str, new: str) -> None:
        assert old in self.read(path)
        self.write(path, self.read(path).replace(old, new))

    def set(self, section: str, **settings: object) -> None:
        params = yaml.safe_load(self.read("params.yaml"))
        params[section] |= settings
        self.write("params.yaml", yaml.safe_dump(params, sort_keys=False))

    def definitions(self, retries: RetryPolicy | None = None) -> Definitions:
        stages = read_pipeline(self.folder)
        return Definitions(
            assets=[*outside_assets(stages), *(stage_asset(stage, self.folder, nothing, nothing_wrong, retries) for stage in stages)],
            executor=in_process_executor,
        )

    def materialize(self, instance: DagsterInstance, *addresses: str, raise_on_error: bool = True) -> ExecuteInProcessResult:
        stages = read_pipeline(self.folder)
        wanted = [asset_key(address) for address in addresses] or [asset_key(stage.address) for stage in stages]
        return materialize(
            [*outside_assets(stages), *(stage_asset(stage, self.folder, nothing, nothing_wrong) for stage in stages)],
            selection=AssetSelection.assets(*wanted),
            instance=instance,
            raise_on_error=raise_on_error,
        )

    def tick(self, instance: DagsterInstance) -> list[str]:
        """What the sensor does; returns the stages it reported."""
        clear_up(instance, self.folder)
        return ["@".join(key.path) for key in report(instance, self.folder, nothing, nothing_wrong)[1]]

    def stale_in_dagster(self, instance: DagsterInstance) -> set[str]:
        graph = self.definitions().resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return {"@".join(key.path) for key in graph.materializable_asset_keys if resolver.get_status(key) != StaleStatus.FRESH}

    def stale_in_dvc(self) -> set[str]:
        with Repo(str(self.folder)) as repo:
            found: dict[str, Any] = repo.status()
        return {address.rpartition(":")[2] for address in found}

    def started(self) -> psutil.Process:
        """The stage `words`, once it runs."""
        deadline = time.monotonic() + 60
        while not (self.folder / "pid.txt").exists():
            assert time.monotonic() < deadline, "the stage did not start"
            time.sleep(0.05)
        return psutil.Process(int(self.read("pid.txt")))

    def runs(self) -> int:
        """How often the stage `words` has run."""
        return self.read("ran.txt").count("words") if (self.folder / "ran.txt").exists() else 0


@pytest.fixture(scope="session")
def made_once(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "project with a space"
    toy = Toy(folder, checkout)
    toy.write("dvc.yaml", PIPELINE)
    toy.write("assets/words/run.py", WORDS)
    toy.write("assets/copy/run.py", COPY)
    toy.write("raw.txt", "three small words\n")
    toy.write(".gitignore", "/.cache/\n/ran.txt\n/pid*\n/wait\n/fail\n/unreachable\n")
    toy.write("data/.gitignore", "*.txt\n")
    (folder / "params.yaml").write_text(demo_text(), encoding="utf-8")
    toy.git("init", "-q")
    toy.run(sys.executable, "-m", "dvc", "init", "-q")
    toy.run(sys.executable, "-m", "dvc", "repro", "-q")
    toy.git("add", "--all")
    toy.git("commit", "-q", "-m", "made")
    return folder


@pytest.fixture
def toy(made_once: Path, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    folder = tmp_path / "a project"
    shutil.copytree(made_once, folder, symlinks=True)
    project = Toy(folder, checkout)
    for left in ("ran.txt", "pid.txt"):
        (folder / left).unlink()
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return project
