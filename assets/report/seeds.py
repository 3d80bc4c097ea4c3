"""python -m assets.report.seeds N [J]: train and evaluate the five recipes with N seeds, J at a time, and aggregate what they score.

Each seed runs in a copy of the checkout of its own by `dvc repro`, which keeps what is finished; what is measured is evaluation's concern.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from scipy.stats import t as student_t

from assets import artifacts
from assets.artifacts import RECIPES
from assets.errors import UserError
from assets.params import PARAMS_FILE, read_params
from assets.report.measures import MEASURE_NAMES, MEASURES, percent, signed, value_of

logger = logging.getLogger(__name__)

# Reading the source is the same for every seed; the report and the table are not part of what is repeated.
READ_ONCE = "source_images"
REPEATED = ("curated_images", "base_clip", "pseudo_captions", "image_tower", "text_tower", "evaluation")
PIPELINE = Path("dvc.yaml")
BENCHMARKS = artifacts.DATA / "benchmarks"  # an empty folder in the copies: what seeds aggregate is measured on the test images alone
COPIED = (Path("assets"), Path(".dvcignore"), Path(".dvc") / "config")
SECONDS_TO_STOP = 6.0
LAST_LINES = 6  # of a failed seed's log, told at the end


def t_interval(values: Sequence[float], level: float) -> tuple[float, float, float, float]:
    """(mean, standard deviation with n − 1, low, high): mean ∓ t((1 + level) / 2, n − 1) · sd / √n. ValueError below two values."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, given {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(student_t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean, deviation, mean - half, mean + half


def aggregate(rows: Mapping[int, Mapping[str, Mapping[str, Any]]], asked: int, level: float) -> dict[str, Any]:
    """What seeds.json holds, from the rows of metrics by seed and recipe; percent, and points of difference to base.

    A measure that some seed could not take is null. A difference `holds` where it has the same sign in every seed; its outcome is
    better or worse where it holds and its interval leaves 0 out, else a tie.
    """
    seeds = sorted(rows)
    recipes = []
    for recipe in RECIPES:
        measures: dict[str, Any] = {}
        for measure in MEASURES:
            values = [value_of(rows[seed][recipe], measure.key) for seed in seeds]
            base = [value_of(rows[seed]["base"], measure.key) for seed in seeds]
            known = [value for value in values if value is not None]
            known_base = [value for value in base if value is not None]
            if len(known) < len(seeds) or len(known_base) < len(seeds):
                measures[measure.key] = None
                continue
            measures[measure.key] = _spread(known, level)
            if recipe != "base":
                differences = [value - other for value, other in zip(known, known_base, strict=True)]
                measures[measure.key]["against_base"] = _spread(differences, level) | _judged(differences, level)
        recipes.append({"recipe": recipe, "measures": measures})
    missing = [seed for seed in range(asked) if seed not in rows]
    return {"seeds": seeds, "missing": missing, "level": level, "rows": recipes}


def _spread(values: Sequence[float], level: float) -> dict[str, Any]:
    mean, deviation, low, high = t_interval(values, level)
    return {
        "values": [round(value, 4) for value in values],
        "mean": round(mean, 4),
        "sd": round(deviation, 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def _judged(differences: Sequence[float], level: float) -> dict[str, Any]:
    _, _, low, high = t_interval(differences, level)
    rose, fell = all(each > 0 for each in differences), all(each < 0 for each in differences)
    outcome = "better" if rose and low > 0 else "worse" if fell and high < 0 else "tie"
    return {"holds": rose or fell, "outcome": outcome}


def offset(written: Mapping[str, Any], by: int) -> dict[str, Any]:
    """The settings with `by` added to the seed of every section that is repeated and has one: `by` 0 leaves them as they are."""
    return {
        name: section | {"seed": section["seed"] + by} if name in REPEATED and "seed" in section else section
        for name, section in written.items()
    }


def settings_of_copy(written: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """`offset`, with the files that dvc does not watch by their absolute paths, and without benchmarks."""
    moved = offset(written, seed)
    if "pseudo_captions" in moved:
        corpora = [_absolute(name) for name in moved["pseudo_captions"]["extra_corpora"]]
        moved["pseudo_captions"] = moved["pseudo_captions"] | {"extra_corpora": corpora}
    if "pretrained" in moved.get("base_clip", {}):
        moved["base_clip"] = moved["base_clip"] | {"pretrained": _absolute(moved["base_clip"]["pretrained"])}
    moved["evaluation"] = moved["evaluation"] | {"benchmarks_root": BENCHMARKS.as_posix()}
    return moved


def _absolute(name: str) -> str:
    """The path of a file, as it is seen from anywhere; a name that is none, such as a tag of open_clip's, as it is."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def repeated_pipeline(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """dvc.yaml with the repeated stages alone."""
    return {"stages": {name: pipeline["stages"][name] for name in REPEATED}}


def given_inputs(pipeline: Mapping[str, Any], written: Mapping[str, Any]) -> list[Path]:
    """Data that the repeated stages read and none of them makes, with ${section.key} replaced by its value in params.yaml."""
    stages = repeated_pipeline(pipeline)["stages"].values()
    made = {_path(out) for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])}
    read = dict.fromkeys(_path(dep) for stage in stages for dep in stage.get("deps", []))
    # what depends on the recipe is made for a recipe
    return [
        Path(_resolved(path, written)) for path in read if path not in made and "${item" not in path and Path(path).parts[0] != "assets"
    ]


def _path(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry))


def _resolved(path: str, written: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        found: Any = written
        for key in match[1].split("."):
            found = found[key]
        return str(found)

    return re.sub(r"\$\{([\w.]+)\}", value, path)


def prepare(workspace: Path, seed: int, pipeline: Mapping[str, Any], written: Mapping[str, Any], cache: str) -> None:
    """Bring the seed's copy of the checkout up to date; what it has made so far stays. Nothing in it changes with the checkout."""
    workspace.mkdir(parents=True, exist_ok=True)
    for path in COPIED:
        _take(path, workspace / path, shutil.copy2)
    benchmarks = Path(written["evaluation"]["benchmarks_root"])
    for path in given_inputs(pipeline, written):
        if path == benchmarks:
            continue
        if path.is_absolute() or not path.resolve().is_relative_to(Path.cwd()):
            if not path.is_absolute():
                raise UserError(f"{path} lies outside the checkout, where the copies for seeds cannot see it: give its absolute path.")
            continue
        if not path.exists():
            raise UserError(f"missing input {path}. `dvc repro {READ_ONCE}` or `dvc checkout` brings it.")
        _take(path, workspace / path, _link)
    with artifacts.replacing(workspace / BENCHMARKS) as temporary:
        temporary.mkdir()
        (temporary / ".gitkeep").touch()  # as in a checkout without benchmarks, so that dvc sees the same folder
    _write_yaml(workspace / PIPELINE, repeated_pipeline(pipeline))
    _write_yaml(workspace / PARAMS_FILE, settings_of_copy(written, seed))
    (workspace / ".dvc" / "config.local").write_text(f'[core]\n    no_scm = true\n[cache]\n    dir = "{cache}"\n', encoding="utf-8")


def _take(path: Path, target: Path, take: Any) -> None:
    with artifacts.replacing(target) as temporary:
        if path.is_dir():
            shutil.copytree(path, temporary, copy_function=take, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            take(path, temporary)


def _link(source: str | Path, target: str | Path) -> None:
    """Artefacts and pictures are replaced, never written in place: a second name keeps what was there."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _write_yaml(path: Path, value: Any) -> None:
    with artifacts.replacing(path) as temporary:
        YAML(typ="safe", pure=True).dump(value, temporary)


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

    def repro(self, workspace: Path, seed: int) -> bool:
        """Whether `dvc repro` in the workspace succeeded; its output goes to log.txt there and, marked with the seed, to ours."""
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro"]
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


def run_seeds(count: int, abreast: int) -> dict[str, Any]:
    """Run seeds 0 … count − 1 and write seeds.json from those that succeeded; what it holds is returned.

    Seed 0 are the values of params.yaml. UserError where fewer than two seeds succeeded.
    """
    if count < 2:
        raise UserError(f"N is {count}; an interval over seeds needs at least 2: make seeds N=3")
    if not 1 <= abreast <= count:
        raise UserError(f"J is {abreast}; how many seeds run side by side is 1 to N, here {count}: make seeds N={count} J=1")
    params, written = read_params()
    pipeline = artifacts.read_yaml(PIPELINE)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    runs = Runs(None if abreast == 1 else max(1, cpus // abreast))
    with alone():
        dvc = [sys.executable, "-m", "dvc"]
        if subprocess.run([*dvc, "--wait-for-lock", "repro", "--quiet", READ_ONCE], env=runs.environment, check=False).returncode:
            raise UserError(f"{READ_ONCE} failed; see above. No seed was run.")
        # `dvc cache dir` asks the checkout's settings, which may keep the cache elsewhere
        cache = subprocess.run([*dvc, "cache", "dir"], env=runs.environment, capture_output=True, text=True, check=True).stdout.strip()
        workspaces = {seed: artifacts.SEED_RUNS / str(seed) for seed in range(count)}
        for seed, workspace in workspaces.items():
            prepare(workspace, seed, pipeline, written, str(Path(cache).resolve()))
        with ThreadPoolExecutor(abreast) as pool:
            futures = {seed: pool.submit(runs.repro, workspace, seed) for seed, workspace in workspaces.items()}
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
        rows = {seed: read_rows(workspaces[seed]) for seed in done}
    found = aggregate(rows, count, params.evaluation.confidence)
    artifacts.write_json(artifacts.SEEDS, found)
    return found


def read_rows(workspace: Path) -> dict[str, dict[str, Any]]:
    return {recipe: artifacts.read_json(workspace / artifacts.evaluation_dir(recipe) / "metrics.json") for recipe in RECIPES}


def told(found: Mapping[str, Any]) -> str:
    """The aggregate for a terminal, a line a recipe and measure."""
    lines = []
    for row in found["rows"]:
        lines.append(row["recipe"])
        for key, entry in row["measures"].items():
            if entry is None:
                continue
            low, high = (percent(end) for end in entry["interval"])
            line = f"  {MEASURE_NAMES[key]:<19}{percent(entry['mean']):>5} [{low}, {high}]"
            if against := entry.get("against_base"):
                low, high = (signed(end) for end in against["interval"])
                line = f"{line:<42}{signed(against['mean']):>6} [{low}, {high}] {against['outcome']}"
                line += "" if against["holds"] else ", not in all seeds"
            lines.append(line)
    return "\n".join(lines)


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
    logger.info("%s: %s. `make readme` shows them.", artifacts.SEEDS, shown)
    return 1 if found["missing"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
