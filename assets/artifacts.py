"""Every path of the pipeline, named once, and how files reach it: whole or not at all.

Paths are relative to the checkout, the working directory of every stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from assets.errors import UserError

RECIPES = ("base", "gpr", "gpr_rea", "mcip", "mcip_rea")  # the rows of the paper's Table 1

DATA = Path("data")
EMOJI_PACKAGES = DATA / "emoji"
SOURCE_IMAGES = DATA / "source_images" / "images.parquet"
CURATED = DATA / "curated_images"
CURATED_IMAGES = CURATED / "images.parquet"
REJECTED_IMAGES = CURATED / "rejected.parquet"
EXPECTATIONS = CURATED / "expectations.json"
CAPTIONS = DATA / "pseudo_captions" / "captions.parquet"
IMAGE_CAPTIONS = DATA / "pseudo_captions" / "image_captions.parquet"
REPORT = DATA / "report"
METRICS = REPORT / "metrics.json"
VERDICT = REPORT / "verdict.json"
REPORT_PAGE = REPORT / "index.html"
REPORT_MARKDOWN = REPORT / "report.md"
PLOTS = REPORT / "plots"
SEEDS = REPORT / "seeds.json"
LANCEDB = DATA / "lancedb"
TABLE_NAME = "images"
TABLE_MANIFEST = DATA / "search_table" / "manifest.json"
CHAMPION = DATA / "champion.json"

WORK = Path(".cache")  # ignored by git and dvc: downloads, training state for resuming, reports of failed checks
LAST_EXPECTATIONS = WORK / "curated_images" / "expectations.json"
SEED_RUNS = WORK / "seeds"  # a copy of the checkout for each


SPLITS = ("train", "validation", "test", "library")

# label: the class key, null for library images; class_name: what a person calls it; captions: what people wrote about the picture.
IMAGES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # an encoded picture file
        pa.field("label", pa.string()),
        pa.field("class_name", pa.string(), nullable=False),  # "" where there is no label
        pa.field("group", pa.string()),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("attribution", pa.string(), nullable=False),
    ]
)
# Rows are ordered by (split, id), in the order of SPLITS, so that a reader of one split touches few row groups.
CURATED_SCHEMA = pa.schema(
    [
        *IMAGES_SCHEMA,
        pa.field("split", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),  # of the source's bytes
    ]
)
ROWS_PER_GROUP = 512
BYTES_PER_GROUP = 64 << 20  # big photographs: fewer rows a group, so that a reader's memory stays bounded
REJECTED_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", "reason", "detail")])


def model_dir(recipe: str) -> Path:
    return DATA / "models" / recipe


def history_file(recipe: str) -> Path:
    return DATA / "history" / f"{recipe}.json"


def evaluation_dir(recipe: str) -> Path:
    return DATA / "evaluation" / recipe


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place in one step, on failure it is removed.

    Works for a file or a directory, whichever the caller creates there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            _remove(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_rows(path: Path, schema: pa.Schema) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that appends one row, with a picture in column `image`, to the Parquet file `path`; one row group is held."""
    plain = [name for name in schema.names if name != "image"]  # pictures gain nothing from a dictionary, or from minimum and maximum
    group: list[dict[str, Any]] = []
    size = 0
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain, write_statistics=plain) as writer:

        def flush() -> None:
            nonlocal size
            if group:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
            group.clear()
            size = 0

        def write(row: dict[str, Any]) -> None:
            nonlocal size
            group.append(row)
            size += len(row["image"])
            if len(group) == ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
                flush()

        yield write
        flush()


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
def unchanged_while_running(code: Iterable[Path], data: Iterable[Path], settings: dict[str, Any], params_file: Path) -> Iterator[None]:
    """Fail a stage whose code, settings or inputs changed under it.

    dvc hashes dependencies after the command, so it would record the changed version as the one that was used. `settings` are the
    sections of `params_file` that the stage reads. Code is compared by content, data by size and time of change.
    """

    def state() -> dict[str, object]:
        found: dict[str, object] = {str(path): sha256_of(path) for path in code}
        for root in data:
            for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
                if file.is_file():
                    found[str(file)] = (file.stat().st_size, file.stat().st_mtime_ns)
        written = read_yaml(params_file)
        found |= {f"{params_file} section {name}": written.get(name) for name in settings}
        return found

    before = state() | {f"{params_file} section {name}": value for name, value in settings.items()}
    yield
    after = state()
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if changed:
        raise UserError(
            f"{', '.join(changed)} changed while the stage was running, so its result cannot be recorded as made from either version."
            " Run `dvc repro` again."
        )
