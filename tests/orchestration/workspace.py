"""A checkout of its own with a tiny corpus, where commands of either door run as a user types them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import yaml
from dagster import DagsterInstance

from orchestration.dvc_stage import CHECKOUT
from tests.tiny_project import TINY, Project, copy_checkout, make_pictures

DAGSTER = (sys.executable, "-m", "dagster")
LOCATION = ("-m", "orchestration.definitions")


class Workspace(Project):
    """The tiny project with Dagster's door, whose home is made from the settings that `make ui` puts there."""

    def __init__(self, folder: Path, home: Path) -> None:
        super().__init__(folder, home)
        self.environment |= {"DAGSTER_HOME": str(folder / ".dagster"), "DAGSTER_DISABLE_TELEMETRY": "1"}
        (folder / ".dagster").mkdir()
        shutil.copy(folder / "orchestration/dagster.yaml", folder / ".dagster")

    def dagster(self, *arguments: str, code: int = 0) -> str:
        """The command's output and log."""
        done = subprocess.run(
            [*DAGSTER, *arguments, *LOCATION],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"dagster {' '.join(arguments)} left with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout

    def forget(self, *addresses: str) -> None:
        """Lose what dvc has of stages: outputs, entries in dvc.lock, entries in the run cache."""
        lock = self.folder / "dvc.lock"
        entries = yaml.safe_load(lock.read_text(encoding="utf-8"))
        for address in addresses:
            for output in entries["stages"].pop(address)["outs"]:
                path = self.folder / output["path"]
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        lock.write_text(yaml.safe_dump(entries), encoding="utf-8")
        commands = {f"python -m assets {address}" for address in addresses}
        for run in list((self.folder / ".dvc/cache/runs").glob("*/*/*")):
            if yaml.safe_load(run.read_text(encoding="utf-8"))["cmd"] in commands:
                shutil.rmtree(run.parent)  # of the same command, code and inputs; dvc stumbles over it when it is empty

    def instance(self) -> DagsterInstance:
        return DagsterInstance.from_config(self.environment["DAGSTER_HOME"])


def tiny_workspace(folder: Path, home: Path) -> Workspace:
    """With nothing made yet."""
    copy_checkout(CHECKOUT, folder)
    workspace = Workspace(folder, home)
    for section, settings in TINY.items():
        workspace.change(section, **settings)
    make_pictures(folder / "data" / "images")
    return workspace


def lives(process: psutil.Process) -> bool:
    """Not where it only waits for its parent to look."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
