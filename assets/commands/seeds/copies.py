"""A copy of the checkout for each seed: the stages that are repeated, their code and data, and settings with other seeds.

Running them is runs.py's; what they score is spread.py's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from assets import artifacts
from assets.errors import UserError
from assets.params import PARAMS_FILE

# Reading the source is the same for every seed; the report and the table are not part of what is repeated.
READ_ONCE = "source_images"
REPEATED = ("curated_images", "base_clip", "pseudo_captions", "image_tower", "text_tower", "evaluation")
PIPELINE = Path("dvc.yaml")
BENCHMARKS = artifacts.DATA / "benchmarks"  # an empty folder in the copies: what seeds aggregate is measured on the test images alone
COPIED = (Path("assets"), Path(".dvcignore"), Path(".dvc") / "config")


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
