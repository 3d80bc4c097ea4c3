"""What an evaluation writes and reads back: units, nulls, the order of the classes, and a test split that has changed since."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import artifacts
from assets.errors import UserError
from assets.evaluations import (
    PER_CLASS_SCHEMA,
    PER_QUERY_SCHEMA,
    Evaluation,
    TestSplit,
    per_class_table,
    per_query_table,
    read_evaluation,
    read_test_split,
    sibling_classes,
    write_evaluation,
)
from assets.measures import PAIRED
from assets.pictures.credits import Credit
from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.table import writing_rows

# (id, label, class name, group, captions); "c" is alone in its class
ROWS = [
    ("a", "u2", "red heart", "symbols", ["love", "valentine"]),
    ("b", "u10", "cat face", None, ["love"]),
    ("c", "u3", "sailboat", "travel", []),
    ("d", "u2", "red heart", "symbols", ["heart"]),
    ("e", "u10", "cat face", None, []),
]
SIBLINGS = np.array([False, True, False])  # of u10, u2, u3
VALUES = {
    "image_to_image.map": np.array([0.5, 1, np.nan, 0.25, 0]),
    "image_to_image.recall_at_1": np.array([1, 0, np.nan, 1, 0]),
    "knn.accuracy": np.array([1.0, 0, 0, 1, 1]),
    "zero_shot.accuracy": np.array([0.0, 0, 1, 1, 1]),
    "text_to_image.recall_at_5": np.array([1.0, 0, 1]),
}


def write_curated(rows=ROWS, split: str = "test") -> None:
    with artifacts.replacing(artifacts.CURATED_IMAGES) as temporary, writing_rows(temporary, CURATED_SCHEMA) as write:
        for name, label, class_name, group, captions in rows:
            known = {"id": name, "label": label, "class_name": class_name, "group": group, "captions": captions, "image": b"x"}
            known |= {"family": "animals" if label == "u10" else label}
            known |= {"source": f"source of {label}", "license": "CC0-1.0", "attribution": "the tests", "sha256": name * 64}
            write(known | {"split": split, "width": 1, "height": 1})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_curated()


def evaluation(test: TestSplit) -> Evaluation:
    return Evaluation(
        "x",
        {"recipe": "x", "confidence": {"level": 0.9}},
        np.ones((5, 2), np.float32),
        np.ones((3 + 3, 2), np.float32),
        per_query_table(test, SIBLINGS, VALUES),
        per_class_table(test, SIBLINGS, VALUES),
        {"recipe": "x", "chain": ["base", "x"]},
    )


def test_a_test_split_in_its_orders():
    test = read_test_split()
    assert test.labels.tolist() == ["u2", "u10", "u3", "u2", "u10"]
    assert (test.classes, test.class_names) == (["u10", "u2", "u3"], ["cat face", "red heart", "sailboat"])
    assert test.captions == ["heart", "love", "valentine"]
    assert test.ids(np.array([3, 0])) == ["d", "a"]
    assert test.credits([0, 3, 1]) == [Credit(f"source of {label}", "CC0-1.0", "the tests") for label in ("u10", "u2")]


def test_values_are_percent_and_null_where_there_is_nothing_to_find():
    rows = per_query_table(read_test_split(), SIBLINGS, VALUES).to_pylist()
    assert [row["id"] for row in rows] == list("abcde")
    assert [row["average_precision"] for row in rows] == [50, 100, None, 25, 0]
    assert [row["hit_at_1"] for row in rows] == [True, False, None, True, False]
    assert [row["knn_correct"] for row in rows] == [True, False, False, True, True]
    assert [row["zero_shot_correct"] for row in rows] == [False, False, True, True, True]
    assert [(row["family"], row["sibling"]) for row in rows[:3]] == [("u2", True), ("animals", False), ("u3", False)]
    assert per_class_table(read_test_split(), SIBLINGS, VALUES).to_pylist() == [
        {"label": "u10", "class_name": "cat face", "group": None, "family": "animals", "sibling": False, "images": 2, "recall_at_5": 100},
        {"label": "u2", "class_name": "red heart", "group": "symbols", "family": "u2", "sibling": True, "images": 2, "recall_at_5": 0},
        {"label": "u3", "class_name": "sailboat", "group": "travel", "family": "u3", "sibling": False, "images": 1, "recall_at_5": 100},
    ]


def test_a_class_is_a_sibling_when_one_of_its_pictures_is():
    def write(*correlations: float) -> None:
        columns = {"id": list("abcde")[: len(correlations)], "correlation": pa.array(correlations, pa.float32())}
        pq.write_table(pa.table(columns), artifacts.NEAREST)

    write(0.2, 0.9, 0.1, 0.95, 0.3)
    assert sibling_classes(read_test_split(), 0.9).tolist() == SIBLINGS.tolist()
    assert sibling_classes(read_test_split(), 0.8).tolist() == [True, True, False]
    write(0.2, 0.9, 0.1)
    with pytest.raises(UserError, match=r"nearest\.parquet lacks 2 test picture\(s\) .* such as d\. `dvc repro curated_images`"):
        sibling_classes(read_test_split(), 0.9)


def test_the_tables_have_a_column_for_every_paired_measure_and_no_other():
    named = {unit: [measure.column for measure in PAIRED if measure.unit == unit] for unit in ("image", "class")}
    assert PER_QUERY_SCHEMA.names == ["id", "label", "group", "family", "sibling", *named["image"]]
    assert PER_CLASS_SCHEMA.names == ["label", "class_name", "group", "family", "sibling", "images", *named["class"]]


def test_what_is_written_is_read_back():
    test = read_test_split()
    write_evaluation(evaluation(test), {"benchmarks": {}})
    found = read_evaluation("x", test)
    assert (found.recipe, found.level, found.made_with["chain"]) == ("x", 0.9, ["base", "x"])
    assert found.per_query.equals(per_query_table(test, SIBLINGS, VALUES))
    assert found.per_class.equals(per_class_table(test, SIBLINGS, VALUES))
    assert found.images.shape == (5, 2)
    assert pq.read_schema(artifacts.evaluation_dir("x") / "per_query.parquet").equals(PER_QUERY_SCHEMA)
    assert artifacts.read_json(artifacts.evaluation_dir("x") / "benchmarks.json") == {"benchmarks": {}}


@pytest.mark.parametrize("rows", [ROWS[:4], [*ROWS[:4], ("f", *ROWS[4][1:])], [*ROWS[:4], (*ROWS[4][:4], ["new"])]])
def test_an_evaluation_of_other_test_images_is_refused(rows):
    """One image fewer, another id, one caption more."""
    write_evaluation(evaluation(read_test_split()), {})
    write_curated(rows)
    with pytest.raises(UserError, match=r"data/evaluation/x was made from other test images .*dvc repro evaluation@x"):
        read_evaluation("x", read_test_split())


def test_no_test_images():
    write_curated(split="train")
    with pytest.raises(UserError, match=r"has no test images.*curated_images\.test_fraction"):
        read_test_split()
