"""What it costs to find out that nothing is to be done: `make benchmark`, after `make demo`. Prints seconds; asserts nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

STAGE = "source_images"
DVC = [sys.executable, "-m", "dvc", "repro", "--single-item", STAGE]
DAGSTER = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", STAGE, "-m", "orchestration.definitions"]
LOAD = [sys.executable, "-c", "import orchestration.definitions"]


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DAGSTER_DISABLE_TELEMETRY": "1", "DAGSTER_HOME": home}
        for name, command in {"dvc, nothing to do": DVC, "Dagster, nothing to do": DAGSTER, "the code location loads": LOAD}.items():
            best = min(_seconds(command, environment) for _ in range(3))
            print(f"{name}: {best:.1f} s (best of three)")  # noqa: T201


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} left with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
