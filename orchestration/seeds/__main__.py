"""python -m orchestration.seeds N [J]: train and evaluate the measured recipes with N seeds, J at a time, and aggregate their scores.

Each seed runs by `dvc repro` in its own copy of the checkout, where dvc keeps what is finished.
dvc's experiments do not carry this (tried with 3.67): the queue leaves out ignored inputs such as data/images, a stopped experiment counts
as failed and loses its half-trained state, and every seed adds refs to the user's git.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from assets import artifacts
from assets.errors import UserError
from assets.measures import MEASURE_OF, percent, signed
from assets.params import read_params
from orchestration.seeds.copies import prepare, repeated
from orchestration.seeds.runs import Runs, alone
from orchestration.seeds.spread import aggregate
from orchestration.stage_assets import read_pipeline

logger = logging.getLogger(__name__)

LAST_LINES = 6  # of a failed seed's log, shown at the end


def run_seeds(count: int, abreast: int) -> dict[str, Any]:
    """Run seeds 0 … count − 1 and write seeds.json from those that succeeded; what it holds is returned.

    Seed 0 are the values of params.yaml. UserError where fewer than two seeds succeeded.
    """
    if count < 2:
        raise UserError(f"N is {count}; an interval over seeds needs at least 2: make seeds N=3")
    if not 1 <= abreast <= count:
        raise UserError(f"J is {abreast}; 1 to N seeds, here {count}, can run side by side: make seeds N={count} J=1")
    params, written = read_params()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    runs = Runs(None if abreast == 1 else max(1, cpus // abreast))
    with alone():
        dvc = [sys.executable, "-m", "dvc"]
        again = repeated(read_pipeline(Path.cwd()))
        if subprocess.run([*dvc, "--wait-for-lock", "repro", "--quiet", *again.read_once], env=runs.environment, check=False).returncode:
            raise UserError(f"{', '.join(again.read_once)} failed; see above. No seed was run.")
        # `dvc cache dir` asks the checkout's settings, which may keep the cache elsewhere
        cache = subprocess.run([*dvc, "cache", "dir"], env=runs.environment, capture_output=True, text=True, check=True).stdout.strip()
        workspaces = {seed: artifacts.SEED_RUNS / str(seed) for seed in range(count)}
        for seed, workspace in workspaces.items():
            prepare(workspace, seed, again, written, str(Path(cache).resolve()))
        with ThreadPoolExecutor(abreast) as pool:
            futures = {seed: pool.submit(runs.repro, workspace, seed, again.targets) for seed, workspace in workspaces.items()}
            try:
                done = [seed for seed, future in futures.items() if future.result()]
            except BaseException:
                runs.stop()
                raise
        failed = [seed for seed in workspaces if seed not in done]
        for seed in failed:
            log = workspaces[seed] / "log.txt"
            last = log.read_text(encoding="utf-8").rstrip().splitlines()[-LAST_LINES:]
            logger.error("seed %d failed; %s ends with:\n  %s", seed, log, "\n  ".join(last))
        if len(done) < 2:
            raise UserError(
                f"{len(done)} of {count} seeds succeeded, and an interval needs two: {artifacts.SEEDS} stays as it is."
                " Mend the cause and run it again; what is finished is not repeated."
            )
        rows = {seed: read_rows(workspaces[seed], params.recipes.measured) for seed in done}
    found = aggregate(rows, params.promotion.pairs, count, params.evaluation.confidence)
    artifacts.write_json(artifacts.SEEDS, found)
    return found


def read_rows(workspace: Path, recipes: list[str]) -> dict[str, dict[str, Any]]:
    return {recipe: artifacts.read_json(workspace / artifacts.evaluation_dir(recipe) / "metrics.json") for recipe in recipes}


def told(found: Mapping[str, Any]) -> str:
    """The aggregate for a terminal: one line per recipe and measure."""
    lines = []
    for row in found["rows"]:
        lines.append(row["recipe"])
        for key, entry in row["measures"].items():
            if entry is None:
                continue
            low, high = (percent(end) for end in entry["interval"])
            line = f"  {MEASURE_OF[key].name:<19}{percent(entry['mean']):>5} [{low}, {high}]"
            if against := entry.get("against_base"):
                line = f"{line:<42}{_difference(against)}"
            lines.append(line)
    for pair in found["pairs"]:
        lines.append(f"{pair['recipe']} against {pair['against']}")
        lines += [f"  {MEASURE_OF[key].name:<40}{_difference(entry)}" for key, entry in pair["differences"].items() if entry is not None]
    return "\n".join(lines)


def _difference(entry: Mapping[str, Any]) -> str:
    low, high = (signed(end) for end in entry["interval"])
    held = "" if entry["holds"] else ", not in all seeds"
    return f"{signed(entry['mean']):>6} [{low}, {high}] {entry['outcome']}{held}"


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if not 1 <= len(arguments) <= 2 or not all(each.isdecimal() for each in arguments):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    count, abreast = int(arguments[0]), int(arguments[1]) if len(arguments) == 2 else 1
    try:
        found = run_seeds(count, abreast)
    except UserError as error:
        sys.stderr.write(f"\nerror: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped. `make seeds` goes on from the stages that are finished.\n")
        return 130
    logger.info("\n%s\n", told(found))
    shown = f"{len(found['seeds'])} of {count} seeds, {100 * found['level']:g} % t-intervals"
    logger.info("%s: %s. `make record` puts them into README.md.", artifacts.SEEDS, shown)
    return 1 if found["missing"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
