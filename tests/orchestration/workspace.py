"""A checkout of its own with a tiny corpus, where commands of either door run as a user types them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
from dagster import DagsterInstance

from orchestration.dvc_stage import CHECKOUT
from tests.test_pulse import TINY, Project, make_pictures

WANTED = ("assets", "orchestration", "data", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "Makefile")
DAGSTER = (sys.executable, "-m", "dagster")
LOCATION = ("-m", "orchestration.definitions")


def copy_checkout(folder: Path) -> None:
    """What git knows of the checkout, or would take in, without what the pipeline made."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *WANTED]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file() and not name.startswith("data/report"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".dagster").mkdir()
    shutil.copy(folder / "orchestration/dagster.yaml", folder / ".dagster")


class Workspace(Project):
    """The project of tests/test_pulse.py, with Dagster's door."""

    def __init__(self, folder: Path, home: Path) -> None:
        super().__init__(folder, home)
        self.environment |= {"DAGSTER_HOME": str(folder / ".dagster"), "DAGSTER_DISABLE_TELEMETRY": "1"}

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

    def instance(self) -> DagsterInstance:
        return DagsterInstance.from_config(self.environment["DAGSTER_HOME"])


def tiny_workspace(folder: Path, home: Path) -> Workspace:
    copy_checkout(folder)
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
