"""A small working directory: real PNGs in a curated table, a tiny open_clip model of random weights, params.yaml, a verdict."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from assets import artifacts
from assets.params import SearchTable, read_params
from assets.pictures import table
from assets.pictures.schema import CURATED_SCHEMA, SPLITS
from assets.pictures.table import writing_rows
from tests.models import write_model
from tests.settings import demo_settings

RECIPE = "mcip_rea"
CLASSES = ("red heart", "blue heart", "cat face", "sailboat")


def png(seed: int) -> bytes:
    """A picture of 4 × 4 random colour fields."""
    fields = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(fields).resize((48, 40), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def curated_rows(per_class: int = 6, first_seed: int = 0) -> list[dict[str, Any]]:
    """`per_class` pictures of each class, and two of the library: one with a caption, one without."""
    rows = []
    for number in range(per_class * len(CLASSES)):
        label, view = divmod(number, per_class)
        rows.append(
            {
                "id": f"vendor{view}/{label}",
                "label": f"u{label}",
                "class_name": CLASSES[label],
                "group": "symbols" if label < 2 else None,
                "captions": ["love", "valentine"] if label < 2 else ["animal" if label == 2 else "ship"],
                "split": "test" if label == 3 else "validation" if view == 0 else "train",
            }
        )
    rows.append({"id": "a.png", "label": None, "class_name": "", "group": None, "captions": [], "split": "library"})
    rows.append({"id": "b.png", "label": None, "class_name": "", "group": None, "captions": ["a beach at dusk"], "split": "library"})
    for number, row in enumerate(rows):
        data = png(first_seed + number)
        row |= {"image": data, "width": 48, "height": 40, "sha256": hashlib.sha256(data).hexdigest()}
        row |= {"source": row["id"].partition("/")[0], "license": "CC0-1.0", "attribution": "the tests"}
    return sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["id"]))


def write_curated(rows: list[dict[str, Any]]) -> None:
    """In row groups of 10, two to a shard: a batch ends before or after a group, and before a shard does."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(table, "ROWS_PER_GROUP", 10)
        monkeypatch.setattr(table, "GROUPS_PER_SHARD", 2)
        with artifacts.replacing(artifacts.CURATED_IMAGES) as temporary, writing_rows(temporary, CURATED_SCHEMA) as write:
            for row in rows:
                write(row)


def write_verdict(**changes: Any) -> None:
    verdict = {"recipe": RECIPE, "against": "base", "decision": "publish", "reasons": [], "families": {}, "override_reason": None}
    artifacts.write_json(artifacts.VERDICT, verdict | changes)


def retrain(amount: float) -> None:
    """Another model in the place of the recipe's, as a stage writes it: not in place."""
    weights = artifacts.model_dir(RECIPE) / "open_clip_model.safetensors"
    state = load_file(weights)
    projection = next(name for name in ("visual.proj", "visual.head.proj.weight") if name in state)
    state[projection] = state[projection] * (1 + amount) + amount
    save_file(state, weights.with_suffix(".new"))
    os.replace(weights.with_suffix(".new"), weights)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_model(directory)
    return directory


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The model is too small to share out: threads would only wait for one another."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_workplace(root: Path, checkout: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `root` the working directory, with all that the stage reads."""
    monkeypatch.chdir(root)
    params = demo_settings()
    params["promotion"]["recipe"] = RECIPE
    params["search_table"] |= {"device": "cpu", "precision": "fp32", "batch_size": 16, "index_from_rows": 1000}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(model_directory, artifacts.model_dir(RECIPE))
    write_curated(curated_rows())
    pq.write_table(pa.Table.from_pylist([{"id": "torn.jpg", "reason": "undecodable", "detail": ""}]), artifacts.REJECTED_IMAGES)
    write_verdict()


@pytest.fixture
def settings_with() -> Callable[..., SearchTable]:
    """Section search_table of params.yaml with changes."""
    return lambda **changes: SearchTable(**(read_params()[0].search_table.model_dump() | changes))


@pytest.fixture
def unpublished(tmp_path: Path, checkout: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory has all that the stage reads, and no table."""
    make_workplace(tmp_path, checkout, model_directory, monkeypatch)
    return tmp_path


@pytest.fixture(scope="session")
def _published_root(tmp_path_factory: pytest.TempPathFactory, checkout: Path, model_directory: Path) -> Path:
    from assets.search_table.stage import publish

    root = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_workplace(root, checkout, model_directory, monkeypatch)
        publish(read_params()[0].search_table, RECIPE)
    return root


@pytest.fixture
def published(_published_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory has a published table, shared between tests: to be read only."""
    monkeypatch.chdir(_published_root)
    return _published_root
