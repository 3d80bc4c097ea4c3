"""`dvc repro` in the copies, as children that an interruption ends, and by one command at a time in a checkout.

dvc keeps what is finished; copies.py makes the copies.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from assets import artifacts
from assets.errors import UserError

logger = logging.getLogger(__name__)

SECONDS_TO_STOP = 6.0


class Runs:
    """The running children, so that an interruption ends all of them."""

    def __init__(self, threads: int | None) -> None:
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # dvc.yaml says `python`
            "DVC_NO_ANALYTICS": "1",
        }
        if threads is not None:
            self.environment["OMP_NUM_THREADS"] = str(threads)
        self.groups: set[int] = set()
        self.stopped = False
        self.lock = threading.Lock()

    def repro(self, workspace: Path, seed: int, targets: Sequence[str] = ()) -> bool:
        """Whether `dvc repro` of `targets`, or of everything, succeeded in the workspace.

        Its output goes to log.txt there and, marked with the seed, to ours.
        """
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *targets]
        with self.lock:
            if self.stopped:
                return False
            child = subprocess.Popen(
                command, cwd=workspace, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            self.groups.add(child.pid)
        begun = time.monotonic()
        with child, (workspace / "log.txt").open("w", encoding="utf-8") as log:
            assert child.stdout is not None
            for line in child.stdout:
                log.write(line)
                log.flush()
                if line.strip():
                    logger.info("seed %d │ %s", seed, line.rstrip())
        with self.lock:
            self.groups.discard(child.pid)
        if not self.stopped:
            how = "done" if child.returncode == 0 else "FAILED"
            logger.info("seed %d │ %s after %.0f s", seed, how, time.monotonic() - begun)
        return child.returncode == 0

    def stop(self) -> None:
        """End every child with what it started: politely, then for certain. Finished stages are kept by dvc."""
        with self.lock:
            self.stopped = True
            groups = set(self.groups)
        deadline = time.monotonic() + SECONDS_TO_STOP
        for wish in (signal.SIGTERM, signal.SIGKILL):
            for group in groups:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, wish)
            while self.groups and time.monotonic() < deadline:
                time.sleep(0.05)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """UserError where another process is at the seeds of this checkout; the kernel lets go when this one dies."""
    artifacts.SEED_RUNS.mkdir(parents=True, exist_ok=True)
    with (artifacts.SEED_RUNS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("`make seeds` is already running in this checkout. Wait for it, or stop it.") from None
        yield
