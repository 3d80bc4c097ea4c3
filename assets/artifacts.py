"""Every path of the pipeline, named once, and how files reach it: whole or not at all.

Paths are relative to the checkout, the working directory of every stage.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from assets.errors import UserError

DATA = Path("data")
SOURCE_IMAGES = DATA / "source_images" / "images"
ADDRESSES = DATA / "addresses.json"  # in git: what lies at the addresses that the sources name
CURATED = DATA / "curated_images"
CURATED_IMAGES = CURATED / "images"
REJECTED_IMAGES = CURATED / "rejected.parquet"
EXPECTATIONS = CURATED / "expectations.json"
NOTES = CURATED / "notes.parquet"  # what a person may want to know of kept pictures
NEAREST = CURATED / "nearest.parquet"  # of each test picture, the training picture most like it
DROP = CURATED / "drop.json"  # what is new since the last publish
PSEUDO_CAPTIONS = DATA / "pseudo_captions"
CAPTIONS = PSEUDO_CAPTIONS / "captions.parquet"
IMAGE_CAPTIONS = PSEUDO_CAPTIONS / "image_captions.parquet"
TRAINING_CAPTIONS = DATA / "training_captions"
MODELS = DATA / "models"
HISTORY = DATA / "history"
EVALUATION = DATA / "evaluation"
METRICS = DATA / "promotion" / "metrics.json"
VERDICT = DATA / "promotion" / "verdict.json"
REPORT = DATA / "report"
REPORT_PAGE = REPORT / "index.html"
CURATION_PAGE = REPORT / "curation.html"
REPORT_MARKDOWN = REPORT / "report.md"
PLOTS = REPORT / "plots"
MODEL_CARD = "model_card.json"  # in a model directory
SEEDS = DATA / "seeds.json"
RECORD = DATA / "record"  # in git: the figures and pictures that README shows, written by `make record` alone
LANCEDB = DATA / "lancedb"
TABLE_NAME = "images"
TABLE_MANIFEST = DATA / "search_table" / "manifest.json"
ACCEPTED = DATA / "search_table" / "accepted.parquet"  # the pictures that the last publish was made from, rejected ones too
CHAMPION = DATA / "champion.json"
CHAMPION_KEPT = DATA / "champion"  # written by `make promote`; an output of the stage champion
CHAMPION_MODEL = CHAMPION_KEPT / "model"
TRAINED_ON = CHAMPION_KEPT / "trained_on.parquet"
SEEN = "seen.json"  # in the champion's evaluation: the families of test classes that it was trained on
JUDGEMENTS = DATA / "judgements.jsonl"  # what people said of hits, on the page of the service
EXPORT = DATA / "export"
EXPORT_CARD = "export.json"  # in it: of which model, and how well each precision agrees with it
EXPORTED_FOR_OTHERS = ("transformers_js",)  # in it, and not for our own queries

WORK = Path(".cache")  # ignored by git and dvc: downloads, training state for resuming, reports of failed checks
LAST_EXPECTATIONS = WORK / "curated_images" / "expectations.json"
LAST_DROP = WORK / "curated_images" / "drop.json"
SEED_RUNS = WORK / "seeds"  # a copy of the checkout for each


def model_dir(recipe: str) -> Path:
    return MODELS / recipe


def model_name(recipe: str, sha256: str) -> str:
    """What the table calls a model. `sha256`: of its directory."""
    return f"{recipe}@{sha256[:12]}"


def training_captions_dir(recipe: str) -> Path:
    """The captions that a recipe of image_tower trains with."""
    return TRAINING_CAPTIONS / recipe


def history_file(recipe: str) -> Path:
    return HISTORY / f"{recipe}.json"


def evaluation_dir(recipe: str) -> Path:
    return EVALUATION / recipe


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place, on failure it is removed.

    Works for a file or a directory, whichever the caller creates there. A kill leaves the old or the new one, never neither: a directory
    that is there already changes places with the new one in one step where the system can (Linux, macOS). Where it cannot, a kill between
    two steps may leave both beside `path`, whole, under names that begin with a dot. What killed processes left goes with the next success.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            _exchange(temporary, path)
        else:
            os.replace(temporary, path)
        for left in _left_behind(path):
            _remove(left)
    finally:
        _remove(temporary)


def _left_behind(path: Path) -> list[Path]:
    """What processes that were killed while they wrote `path` left beside it."""
    found = []
    for beside in path.parent.glob(".*.tmp"):
        match = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.tmp(\.aside\.tmp)?", beside.name)
        if match and not _lives(int(match[1])):
            found.append(beside)
    return found


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _exchange(one: Path, other: Path) -> None:
    """The two change places, in one step where the system has a call for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    here = -100  # AT_FDCWD
    if hasattr(libc, "renameat2"):
        done = libc.renameat2(here, names[0], here, names[1], 2) == 0  # RENAME_EXCHANGE
    elif hasattr(libc, "renamex_np"):
        done = libc.renamex_np(*names, 2) == 0  # RENAME_SWAP
    else:
        done = False
    if not done:  # also a file system without it
        aside = one.with_name(f"{one.name}.aside.tmp")
        os.replace(other, aside)
        os.replace(one, other)
        os.replace(aside, one)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def linked_copy(directory: Path, target: Path) -> None:
    """Copy a directory by hard links, where the file system has them: files of artefacts are replaced, never written into."""

    def link(source: str, copy: str) -> None:
        try:
            os.link(os.path.realpath(source), copy)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or a file system without links
            shutil.copy2(source, copy)

    shutil.copytree(directory, target, copy_function=link)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_yaml(path: Path) -> Any:
    """YAML 1.2, as dvc reads and writes it: 1e-05 is a number."""
    return YAML(typ="safe", pure=True).load(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a directory's relative names and contents in sorted order."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\0".encode())
    else:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def unchanged_while_running(
    code: Iterable[Path], data: Iterable[Path], settings: Iterable[str], written: dict[str, Any], params_file: Path
) -> Iterator[None]:
    """Fail a stage whose code, settings or inputs changed under it.

    dvc hashes dependencies after the command, so it would record the changed version as the one that was used. `settings` are the
    dotted names in `params_file` that the stage reads, `written` what that file held when it was read. Code is compared by content, data
    by size and time of change.
    """

    def state(settings_now: Any) -> dict[str, object]:
        found: dict[str, object] = {str(path): sha256_of(path) if path.exists() else None for path in code}
        for root in data:
            for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
                if file.is_file():
                    found[str(file)] = (file.stat().st_size, file.stat().st_mtime_ns)
        return found | {f"{params_file} {name}": _setting(settings_now, name) for name in settings}

    code, data, settings = list(code), list(data), list(settings)
    before = state(written)
    yield
    after = state(read_yaml(params_file))
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if changed:
        raise UserError(
            f"{', '.join(changed)} changed while the stage was running, so its result cannot be recorded as made from either version."
            " Run `dvc repro` again."
        )


def _setting(written: Any, name: str) -> Any:
    for key in name.split("."):
        written = written.get(key) if isinstance(written, dict) else None
    return written
