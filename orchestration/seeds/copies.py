"""A copy of the checkout for each seed: the stages that are repeated, their code and data, and settings with other seeds.

runs.py runs them, spread.py aggregates their scores.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from assets import artifacts
from assets.errors import UserError
from assets.params import PARAMS_FILE
from orchestration.stage_assets import PipelineStage

MEASURED = "evaluation"  # the stage whose results are aggregated
PIPELINE = Path("dvc.yaml")
BENCHMARKS = artifacts.DATA / "benchmarks"  # an empty folder in the copies: what seeds aggregate is measured on the test images alone
COPIED = (Path("assets"), Path(".dvcignore"), Path(".dvc") / "config")


@dataclass(frozen=True)
class Repeated:
    """What every seed repeats: `stages` are sections of dvc.yaml, `targets` the addresses to make.

    `read_once` are the addresses of stages that read the source, which no seed changes. `inputs` are the files and folders that the
    repeated stages read and none of them makes.
    """

    stages: tuple[str, ...]
    targets: tuple[str, ...]
    read_once: tuple[str, ...]
    inputs: tuple[Path, ...]


def repeated(stages: Sequence[PipelineStage]) -> Repeated:
    """The evaluations and all that they are made from, but for the stages that depend on no other."""
    of = {stage.address: stage for stage in stages}
    targets = tuple(address for address in of if _name(address) == MEASURED)
    needed: set[str] = set()
    waiting = list(targets)
    while waiting:
        address = waiting.pop()
        if address not in needed:
            needed.add(address)
            waiting += of[address].upstream
    read_once = tuple(address for address in of if address in needed and not of[address].upstream)
    again = [stage for address, stage in of.items() if address in needed and address not in read_once]
    read = [path for address in read_once for path in of[address].outputs] + [path for stage in again for path in stage.sources]
    names = dict.fromkeys(_name(stage.address) for stage in again)
    return Repeated(tuple(names), targets, read_once, tuple(Path(path) for path in dict.fromkeys(read)))


def _name(address: str) -> str:
    return address.partition("@")[0]


def offset(written: Mapping[str, Any], by: int, stages: Collection[str]) -> dict[str, Any]:
    """The settings with `by` added to the seed of each of these stages, and of each recipe that has its own; `by` 0 changes nothing."""

    def moved(section: dict[str, Any]) -> dict[str, Any]:
        return section | {"seed": section["seed"] + by} if "seed" in section else section

    found = {name: moved(section) if name in stages else section for name, section in written.items()}
    rows = {
        stage: {recipe: moved(row) for recipe, row in own.items()} if stage in stages else own for stage, own in written["recipes"].items()
    }
    return found | {"recipes": rows}


def settings_of_copy(written: Mapping[str, Any], seed: int, stages: Collection[str]) -> dict[str, Any]:
    """`offset`, with absolute paths for the files that dvc does not watch, and without benchmarks."""
    moved = offset(written, seed, stages)
    corpora = [_absolute(name) for name in moved["pseudo_captions"]["extra_corpora"]]
    moved["pseudo_captions"] = moved["pseudo_captions"] | {"extra_corpora": corpora}
    if "pretrained" in moved["base_clip"]:
        moved["base_clip"] = moved["base_clip"] | {"pretrained": _absolute(moved["base_clip"]["pretrained"])}
    moved["evaluation"] = moved["evaluation"] | {"benchmarks_root": BENCHMARKS.as_posix()}
    return moved


def _absolute(name: str) -> str:
    """The absolute path of a file; any other name, such as a tag of open_clip's, unchanged."""
    return str(Path(name).resolve()) if Path(name).is_file() else name


def prepare(workspace: Path, seed: int, again: Repeated, written: Mapping[str, Any], cache: str) -> None:
    """Bring the seed's copy of the checkout up to date; what it has made so far stays. Later edits of the checkout do not reach it."""
    workspace.mkdir(parents=True, exist_ok=True)
    for path in COPIED:
        _take(path, workspace / path, shutil.copy2)
    benchmarks = Path(written["evaluation"]["benchmarks_root"])
    for path in again.inputs:
        if path == benchmarks:
            continue
        if path.is_absolute() or not path.resolve().is_relative_to(Path.cwd()):
            if not path.is_absolute():
                raise UserError(f"{path} lies outside the checkout, where the copies for seeds cannot see it: give its absolute path.")
            continue
        if not path.exists():
            raise UserError(f"missing input {path}. `dvc repro {' '.join(again.read_once)}` or `dvc checkout` brings it.")
        _take(path, workspace / path, _link)
    with artifacts.replacing(workspace / BENCHMARKS) as temporary:
        temporary.mkdir()
        (temporary / ".gitkeep").touch()  # as in a checkout without benchmarks, so that dvc sees the same folder
    pipeline = artifacts.read_yaml(PIPELINE)["stages"]
    _write_yaml(workspace / PIPELINE, {"stages": {name: pipeline[name] for name in again.stages}})  # templates as they are
    _write_yaml(workspace / PARAMS_FILE, settings_of_copy(written, seed, again.stages))
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
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False  # a plain value such as \S+ may stand in a list of lines, and not in one of brackets
        yaml.dump(value, temporary)
