"""What evaluation@RECIPE leaves in data/evaluation/<recipe>: its tables, writing it, reading it back for today's test images.

Nothing is measured here.

Test order: the rows of the curated table's test split as they stand there, (split, id). Shapes: N test images, C classes, T captions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts
from assets.errors import UserError
from assets.measures import PAIRED
from assets.pictures.credits import Credit, credits_of
from assets.pictures.table import read_rows
from assets.recipes import CHAMPION

# One value per query, for paired comparisons, in the columns that assets/measures.py names. average_precision and recall_at_5 are in
# percent; average_precision and hit_at_1 are null where an image is alone in its class. family: what intervals draw as one; sibling:
# whether the image's class is a sibling, see `sibling_classes`.
PER_QUERY_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("family", pa.string(), nullable=False),
        pa.field("sibling", pa.bool_(), nullable=False),
        pa.field("average_precision", pa.float64()),
        pa.field("hit_at_1", pa.bool_()),
        pa.field("knn_correct", pa.bool_(), nullable=False),
        pa.field("zero_shot_correct", pa.bool_(), nullable=False),
    ]
)
PER_CLASS_SCHEMA = pa.schema(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("family", pa.string(), nullable=False),
        pa.field("sibling", pa.bool_(), nullable=False),
        pa.field("images", pa.int32(), nullable=False),
        pa.field("recall_at_5", pa.float64(), nullable=False),
    ]
)


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
    def families(self) -> list[str]:  # [C]
        family_of = dict(zip(self.labels, self.rows["family"].to_pylist(), strict=True))
        return [family_of[label] for label in self.classes]

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
    made_with: dict[str, Any]  # recipe, model_sha256, chain (the recipes the model is made by), settings by dotted name

    @property
    def level(self) -> float:  # of the intervals
        return self.metrics["confidence"]["level"]


def sibling_classes(test: TestSplit, correlation: float) -> np.ndarray:
    """bool [C]: whether any picture of the class correlates more than `correlation` with a training picture, by nearest.parquet.

    What is measured on such a class may be what training showed: a drawing of a woman where a man's was trained on.
    """
    nearest = pq.read_table(artifacts.NEAREST, columns=["id", "correlation"])
    found = dict(zip(nearest["id"].to_pylist(), nearest["correlation"].to_pylist(), strict=True))
    if absent := [each for each in test.rows["id"].to_pylist() if each not in found]:
        raise UserError(
            f"{artifacts.NEAREST} lacks {len(absent)} test picture(s) of {artifacts.CURATED_IMAGES}, such as {absent[0]}."
            " `dvc repro curated_images` makes both anew."
        )
    siblings = {label for label, each in zip(test.labels, test.rows["id"].to_pylist(), strict=True) if found[each] > correlation}
    return np.array([label in siblings for label in test.classes], bool)


def per_query_table(test: TestSplit, siblings: np.ndarray, values: Mapping[str, np.ndarray]) -> pa.Table:
    """`siblings` as `sibling_classes` gives them; `values` by measure: fractions, float64 [N] for a measure of images, nan where an
    image has nothing to find.
    """
    sibling_of = dict(zip(test.classes, siblings.tolist(), strict=True))
    known = {name: test.rows[name].combine_chunks() for name in ("id", "label", "group", "family")}
    known["sibling"] = pa.array([sibling_of[label] for label in test.labels], pa.bool_())
    return pa.table(known | _columns(values, "image", PER_QUERY_SCHEMA), schema=PER_QUERY_SCHEMA)


def per_class_table(test: TestSplit, siblings: np.ndarray, values: Mapping[str, np.ndarray]) -> pa.Table:
    """`siblings` as above; `values` by measure: fractions, float64 [C] for a measure of classes."""
    labels = test.labels.tolist()
    group_of = dict(zip(labels, test.rows["group"].to_pylist(), strict=True))
    images_of = Counter(labels)
    known = {
        "label": test.classes,
        "class_name": test.class_names,
        "group": [group_of[label] for label in test.classes],
        "family": test.families,
        "sibling": siblings,
        "images": [images_of[label] for label in test.classes],
    }
    return pa.table(known | _columns(values, "class", PER_CLASS_SCHEMA), schema=PER_CLASS_SCHEMA)


def _columns(values: Mapping[str, np.ndarray], unit: str, schema: pa.Schema) -> dict[str, pa.Array]:
    found = {}
    for measure in PAIRED:
        if measure.unit == unit and measure.column is not None:
            fractions, kind = values[measure.key], schema.field(measure.column).type
            column = fractions == 1 if pa.types.is_boolean(kind) else 100 * fractions
            found[measure.column] = pa.array(column, kind, mask=np.isnan(fractions))
    return found


def write_evaluation(evaluation: Evaluation, benchmarks: dict[str, Any] | None) -> None:
    """Each file is whole at any moment; made_with.json comes last. `benchmarks`: None where none is asked for."""
    folder = artifacts.evaluation_dir(evaluation.recipe)
    for name, embeddings in (("image_embeddings.npy", evaluation.images), ("text_embeddings.npy", evaluation.texts)):
        with artifacts.replacing(folder / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, embeddings)
    for name, table in (("per_query.parquet", evaluation.per_query), ("per_class.parquet", evaluation.per_class)):
        with artifacts.replacing(folder / name) as temporary:
            pq.write_table(table, temporary)
    artifacts.write_json(folder / "metrics.json", evaluation.metrics)
    if benchmarks is not None:
        artifacts.write_json(folder / "benchmarks.json", benchmarks)
    artifacts.write_json(folder / "made_with.json", evaluation.made_with)


def read_test_split() -> TestSplit:
    rows = read_rows(artifacts.CURATED_IMAGES, "test")
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
        stage = CHAMPION if recipe == CHAMPION else f"evaluation@{recipe}"
        raise UserError(
            f"{folder} was made from other test images than {artifacts.CURATED_IMAGES}: {len(images)} image and {len(texts)} text vectors,"
            f" where {wanted[0]} and {wanted[1]} are needed, or other ids. `dvc repro {stage}` makes it anew."
        )
    return Evaluation(
        recipe,
        artifacts.read_json(folder / "metrics.json"),
        images,
        texts,
        per_query,
        per_class,
        artifacts.read_json(folder / "made_with.json"),
    )
