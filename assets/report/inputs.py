"""What the report reads: the test split, the evaluations, the histories, the champion, checked to belong together. It draws nothing.

Test order: the rows of the curated table's test split as they stand there, (split, id).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets import artifacts
from assets.errors import UserError
from assets.report.pictures import Credit, credits_of

History = Sequence[Mapping[str, Any]]  # of a training, a row an epoch


@dataclass(frozen=True)
class TestSplit:
    """The N test images in test order, their C classes and T captions, each sorted: the order of a recipe's text embeddings."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    rows: pa.Table  # every column but the image

    @cached_property
    def labels(self) -> np.ndarray:  # [N]
        return np.array(self.rows["label"].to_pylist(), dtype=object)

    @cached_property
    def names(self) -> list[str]:  # [N]
        return self.rows["class_name"].to_pylist()

    @cached_property
    def classes(self) -> list[str]:  # [C]
        return sorted(set(self.labels))

    @cached_property
    def class_names(self) -> list[str]:  # [C]
        name_of = dict(zip(self.labels, self.names, strict=True))
        return [name_of[label] for label in self.classes]

    @cached_property
    def captions_of(self) -> list[list[str]]:  # [N], each image's own
        return self.rows["captions"].to_pylist()

    @cached_property
    def captions(self) -> list[str]:  # [T]
        return sorted({caption for own in self.captions_of for caption in own})

    def ids(self, rows: Iterable[int]) -> list[str]:
        return self.rows["id"].take(pa.array(rows, pa.int64())).to_pylist()

    def credits(self, rows: Iterable[int]) -> list[Credit]:
        return credits_of(self.rows.select(["source", "license", "attribution"]).take(pa.array(rows, pa.int64())).to_pylist())


@dataclass(frozen=True)
class Evaluation:
    recipe: str
    metrics: dict[str, Any]
    images: np.ndarray  # float32 [N, d], unit norm, test order
    texts: np.ndarray  # float32 [C + T, d], unit norm: class names, then captions
    per_query: pa.Table  # N rows, test order
    per_class: pa.Table  # C rows, sorted by label

    @property
    def level(self) -> float:  # of the intervals
        return self.metrics["confidence"]["level"]


def read_test_split() -> TestSplit:
    columns = [name for name in artifacts.CURATED_SCHEMA.names if name != "image"]
    rows = pq.read_table(artifacts.CURATED_IMAGES, columns=columns, filters=[("split", "=", "test")])
    if not rows.num_rows:
        raise UserError(f"{artifacts.CURATED_IMAGES} has no test images: there is nothing to report. Raise curated_images.test_fraction.")
    return TestSplit(rows)


def read_evaluation(recipe: str, test: TestSplit) -> Evaluation:
    """One recipe's evaluation. UserError where it was made from other test images than `test`."""
    folder = artifacts.evaluation_dir(recipe)
    images = np.load(folder / "image_embeddings.npy", mmap_mode="r")
    texts = np.load(folder / "text_embeddings.npy", mmap_mode="r")
    per_query, per_class = pq.read_table(folder / "per_query.parquet"), pq.read_table(folder / "per_class.parquet")
    wanted = (test.rows.num_rows, len(test.classes) + len(test.captions))
    same_rows = per_query["id"].to_pylist() == test.rows["id"].to_pylist() and per_class["label"].to_pylist() == test.classes
    if (len(images), len(texts)) != wanted or not same_rows:
        raise UserError(
            f"{folder} was made from other test images than {artifacts.CURATED_IMAGES}: {len(images)} image and {len(texts)} text vectors,"
            f" where {wanted[0]} and {wanted[1]} are needed, or other ids. `dvc repro evaluation@{recipe}` makes it anew."
        )
    return Evaluation(recipe, artifacts.read_json(folder / "metrics.json"), images, texts, per_query, per_class)


def read_pictures(ids: set[str]) -> dict[str, bytes]:
    """The encoded pictures of some test images, by id."""
    wanted = pc.field("split") == "test"
    rows = pq.read_table(artifacts.CURATED_IMAGES, columns=["id", "image"], filters=wanted & pc.field("id").isin(sorted(ids)))
    return dict(zip(rows["id"].to_pylist(), rows["image"].to_pylist(), strict=True))


def input_files() -> list[Path]:
    """The files and folders of dvc.yaml from which a report follows."""
    evaluations = [artifacts.evaluation_dir(recipe) for recipe in artifacts.RECIPES]
    histories = [artifacts.history_file(recipe) for recipe in artifacts.RECIPES if recipe != "base"]
    return [artifacts.CURATED_IMAGES, artifacts.REJECTED_IMAGES, *evaluations, *histories, artifacts.CHAMPION]


def read_alignment() -> list[dict[str, Any]] | None:
    """How the base was aligned, epoch by epoch, where this project trained it; None for a checkpoint of others."""
    return artifacts.read_json(artifacts.model_dir("base") / "model_card.json").get("alignment")


def count_rejected() -> list[tuple[str, int]]:
    """How many images curation left out, by reason, the most frequent first."""
    reasons = Counter(pq.read_table(artifacts.REJECTED_IMAGES, columns=["reason"])["reason"].to_pylist())
    return sorted(reasons.items(), key=lambda each: (-each[1], each[0]))


def count_rows() -> list[dict[str, Any]]:
    """Images and classes of every split of the curated table that has any, in the order of SPLITS."""
    columns = pq.read_table(artifacts.CURATED_IMAGES, columns=["split", "label"])
    counts = columns.group_by("split").aggregate([([], "count_all"), ("label", "count_distinct")]).to_pylist()
    by_split = {row["split"]: row for row in counts}
    return [
        {"split": split, "images": by_split[split]["count_all"], "classes": by_split[split]["label_count_distinct"]}
        for split in artifacts.SPLITS
        if split in by_split
    ]
