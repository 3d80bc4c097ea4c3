"""Run one stage as `dvc repro` runs it, in a child process. What to run and when is for the callers to know."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SECONDS_TO_STOP = 10.0


class StageFailed(Exception):
    """dvc left with another exit code than 0. Its own output says why."""


def reproduce(stage: str) -> None:
    """`dvc repro` of this stage alone, which does nothing where it is up to date; its output goes to ours.

    Waits while another dvc holds the lock. An interruption ends dvc and the stage together.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",  # dvc.yaml says `python`
        "DVC_NO_ANALYTICS": "1",
    }
    # dvc ignores SIGINT while a stage runs, so both get a process group of their own that can be told to stop
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, start_new_session=True) as child:
        try:
            code = child.wait()
        except BaseException:
            stop(child)
            raise
    if code:
        raise StageFailed(f"`dvc repro --single-item {stage}` left with exit code {code}; its output, above or in the log, says why.")


def stop(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group: politely, then for certain."""
    for wish in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, wish)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SECONDS_TO_STOP)
            return
