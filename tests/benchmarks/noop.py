"""What it costs to find out that nothing is to be done, by either door: `make benchmark`. Prints seconds; asserts nothing.

Measured in the checkout where its pipeline is up to date, else in a copy with a tiny corpus, made up to curated_images.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dvc.repo import Repo

from tests.orchestration.workspace import LOCATION, tiny_workspace

STAGE = "curated_images"
DVC = (sys.executable, "-m", "dvc")
MEASURED = {
    f"dvc, {STAGE} alone": (*DVC, "repro", "--single-item", STAGE),
    f"Dagster, {STAGE} alone": (sys.executable, "-m", "dagster", "asset", "materialize", "--select", STAGE, *LOCATION),
    "the code location loads": (sys.executable, "-c", "import orchestration.definitions"),
}
EVERYTHING = {"dvc, all stages": (*DVC, "repro")}
TIMES = 3


def main() -> None:
    os.environ |= {"DVC_NO_ANALYTICS": "1", "DAGSTER_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory() as home, Repo() as checkout:
        environment = os.environ | {"DAGSTER_HOME": home}
        if not checkout.status():
            print("In the checkout, which is up to date.")  # noqa: T201
            measure(EVERYTHING | MEASURED, Path.cwd(), environment)
            return
        print("The checkout is not up to date (`make demo` makes it so): in a copy with a tiny corpus.")  # noqa: T201
        workspace = tiny_workspace(Path(home) / "a checkout", Path(home) / "site")
        workspace.dvc("repro", STAGE)
        measure(MEASURED, workspace.folder, workspace.environment)


def measure(commands: dict[str, tuple[str, ...]], folder: Path, environment: dict[str, str]) -> None:
    for name, command in commands.items():
        seconds = min(_seconds(command, folder, environment) for _ in range(TIMES))
        print(f"{name}: {seconds:.1f} s (best of {TIMES})", flush=True)  # noqa: T201


def _seconds(command: tuple[str, ...], folder: Path, environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} left with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
