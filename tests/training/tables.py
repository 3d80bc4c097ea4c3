"""What the training stages read, for their tests: a curated table of few noisy pictures, training captions, recipes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from assets import artifacts
from assets.pictures import table as tables
from assets.pictures.schema import CURATED_SCHEMA, SPLITS
from assets.pictures.table import read_rows, writing_rows
from assets.recipes import Recipe

ROWS_PER_GROUP = 5


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def curated_row(label: str, number: int, image: bytes, split: str, **own: object) -> dict[str, Any]:
    return {
        "id": f"{label}/{number}",
        "image": image,
        "label": label,
        "class_name": f"{label} square",
        "group": None,
        "captions": [label, "a colour"],
        "source": "test",
        "license": "CC0-1.0",
        "attribution": "the tests",
        "split": split,
        "width": 36,
        "height": 36,
        "sha256": "0" * 64,
        **own,
    }


def write_curated(rows: list[dict[str, Any]]) -> None:
    """The curated table, in row groups so small that there are several of each split, and two to a shard."""
    whole = tables.ROWS_PER_GROUP, tables.GROUPS_PER_SHARD
    tables.ROWS_PER_GROUP, tables.GROUPS_PER_SHARD = ROWS_PER_GROUP, 2
    try:
        with writing_rows(artifacts.CURATED_IMAGES, CURATED_SCHEMA) as write:
            for row in sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["id"])):
                write(row)
    finally:
        tables.ROWS_PER_GROUP, tables.GROUPS_PER_SHARD = whole


def write_colors(colors: Mapping[str, tuple[int, int, int]]) -> None:
    """Six noisy pictures of each colour, two of them for validation."""
    rows = []
    for label, color in colors.items():
        for view in range(6):
            noise = np.random.default_rng(len(rows)).normal(0, 20, (36, 36, 3))
            rows.append(curated_row(label, view, png(np.array(color) + noise), "validation" if view < 2 else "train"))
    write_curated(rows)


def write_training_captions(recipe: str) -> None:
    """Each training image's own captions and one of another class, as the stage training_captions writes them."""
    rows = read_rows(artifacts.CURATED_IMAGES, "train")
    own = [[*captions, name] for captions, name in zip(rows["captions"].to_pylist(), rows["class_name"].to_pylist(), strict=True)]
    corpus = list(dict.fromkeys(caption for captions in own for caption in captions))
    number = {caption: row for row, caption in enumerate(corpus)}
    ids = [[number[caption] for caption in [*captions, own[row - 1][0]]] for row, captions in enumerate(own)]
    folder = artifacts.training_captions_dir(recipe)
    folder.mkdir(parents=True)
    captions = {"caption_id": list(range(len(corpus))), "caption": corpus, "cluster": [row // 2 for row in range(len(corpus))]}
    pq.write_table(pa.table(captions), folder / "captions.parquet")
    images = {"id": rows["id"].to_pylist(), "caption_ids": ids, "similarities": [[1.0] * len(each) for each in ids]}
    images |= {"own": [[*[True] * (len(each) - 1), False] for each in ids]}
    pq.write_table(pa.table(images), folder / "image_captions.parquet")


def tuned(name: str, settings: Any, start: str = "base", **changes: object) -> Recipe:
    """A recipe of image_tower."""
    return Recipe(name, "image_tower", start, "of the tests", settings.model_copy(update=changes))


def realigned(name: str, settings: Any, start: str, **changes: object) -> Recipe:
    """A recipe of text_tower."""
    return Recipe(name, "text_tower", start, "of the tests", settings.model_copy(update=changes))
