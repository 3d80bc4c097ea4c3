"""Each expectation can fail, and says where."""

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from assets.curated_images import expectations
from assets.curated_images.expectations import failures
from assets.pictures.schema import CURATED_SCHEMA


def validate(rows: list[dict[str, Any]], min_side: int) -> dict[str, Any]:
    nullable = pa.schema([pa.field(each.name, each.type) for each in CURATED_SCHEMA if each.name != "image"])
    return expectations.validate(pl.DataFrame(pa.Table.from_pylist(rows, schema=nullable)), min_side)


@pytest.fixture(autouse=True, params=[20_000, 2], ids=["at once", "two rows at a time"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations holds every value as an object, so a large table goes through it in pieces."""
    monkeypatch.setattr(expectations, "CHECKED_AT_ONCE", request.param)


def row(name: str, split: str, label: str | None, **other: Any) -> dict[str, Any]:
    shared = {
        "class_name": label or "",
        "group": None,
        "family": label,
        "given_split": None,
        "captions": ["words"],
        "source": "s",
        "license": "l",
        "attribution": "",
    }
    return shared | {"id": name, "split": split, "label": label, "width": 9, "height": 8, "sha256": "0a" * 32} | other


GOOD = [
    row("1", "train", "a"),
    row("2", "train", "a", captions=[]),
    row("3", "validation", "a"),
    row("4", "test", "b"),
    row("5", "test", "b"),
    row("6", "library", None),
]
BAD = [
    row("1", "train", "a", width=7, captions=["words", " "]),
    row("1", "training", "a", height=7),
    row("3", "validation", "b", sha256="0A" * 32, class_name=" "),
    row("4", "test", "b", license=None),
    row("5", "library", "c"),
    row("6", "train", None, sha256=None),
]


def test_good_rows_pass_and_the_outcome_is_the_same_every_time():
    result = validate(GOOD, 8)
    assert result["success"]
    assert failures(result) == []
    assert result["statistics"] == {"evaluated": len(result["results"]), "successful": len(result["results"]), "unsuccessful": 0}
    assert validate(GOOD, 8) == result


def test_bad_rows_are_named():
    result = validate(BAD, 8)
    assert not result["success"]
    found = {each["meaning"]: (each["unexpected_count"], each["unexpected_ids"]) for each in result["results"] if not each["success"]}
    assert found == {
        "ids are unique": (2, ["1", "1"]),
        "license is never null": (1, ["4"]),
        "sha256 is never null": (1, ["6"]),
        "split is one of the four": (1, ["1"]),
        "width is at least min_side": (1, ["1"]),
        "height is at least min_side": (1, ["1"]),
        "sha256 is 64 lower-case hexadecimal digits": (1, ["3"]),
        "an image has a label, or is in the library, never both": (2, ["5", "6"]),
        "no family is in test and in train or validation, where the source gives no split": (2, ["3", "4"]),
        "a labelled image has a class name": (1, ["3"]),
        "a test class has two images or more, where the source gives no split": (1, ["4"]),
        "captions are not empty": (1, ["1"]),
    }
    assert result["statistics"]["unsuccessful"] == 12
    assert "license is never null: not so for 1 image(s), such as 4" in failures(result)


def test_families_are_told_apart_and_a_given_split_excuses_a_class_on_both_sides():
    """Two classes of one family are one side's; what the source puts on both sides it answers for."""
    wrong = [row("7", "train", "c", family="b"), row("8", "test", "d", family=""), row("9", "test", "d", family="")]
    found = {each["meaning"]: each["unexpected_ids"] for each in validate([*GOOD, *wrong], 8)["results"] if not each["success"]}
    assert found == {
        "no family is in test and in train or validation, where the source gives no split": ["4", "5", "7"],
        "a labelled image has a family, a library image has none": ["8", "9"],
    }
    given = [row("7", "train", "c", given_split="train"), row("8", "test", "c", given_split="test")]
    assert validate([*GOOD, *given], 8)["success"]
    assert not validate([*GOOD, *given, row("9", "test", "b", given_split="train")], 8)["success"]


def test_training_and_test_images_must_exist():
    assert failures(validate(GOOD[:3], 8)) == ["there are training and test images: not so"]
