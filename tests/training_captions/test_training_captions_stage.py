"""What a recipe of image_tower finds as its captions, and that one without captions never sees a change of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import artifacts
from assets.pseudo_captions.stage import IMAGE_CAPTIONS_SCHEMA
from assets.training_captions.stage import make_training_captions

NAMES = ["captions.parquet", "image_captions.parquet"]


def write_captions(words: list[str]) -> None:
    artifacts.PSEUDO_CAPTIONS.mkdir(parents=True, exist_ok=True)
    numbers = list(range(len(words)))
    captions = pa.table({"caption_id": numbers, "caption": words, "cluster": numbers})
    own = [[number % 2 == 0 for number in numbers], [True]]
    images = pa.table([["a", "b"], [numbers, [0]], [[0.5 + number for number in numbers], [0.25]], own], schema=IMAGE_CAPTIONS_SCHEMA)
    pq.write_table(captions, artifacts.CAPTIONS)
    pq.write_table(images, artifacts.IMAGE_CAPTIONS)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_captions(["red", "blue"])


def written(recipe: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(artifacts.training_captions_dir(recipe).iterdir())}


def test_a_recipe_with_captions_has_the_very_tables():
    make_training_captions("mcip", wanted="both")
    assert written("mcip") == {path.name: path.read_bytes() for path in (artifacts.CAPTIONS, artifacts.IMAGE_CAPTIONS)}


@pytest.mark.parametrize(
    ("wanted", "ids", "similarities"), [("own", [[0, 2], [0]], [[0.5, 2.5], [0.25]]), ("found", [[1], []], [[1.5], []])]
)
def test_a_recipe_can_train_with_the_own_captions_or_the_found_ones_alone(wanted, ids, similarities):
    write_captions(["red", "blue", "pink"])
    make_training_captions("mcip_some", wanted=wanted)
    folder = artifacts.training_captions_dir("mcip_some")
    some = pq.read_table(folder / "image_captions.parquet")
    assert some.schema == IMAGE_CAPTIONS_SCHEMA
    assert some["id"].to_pylist() == ["a", "b"]
    assert (some["caption_ids"].to_pylist(), some["similarities"].to_pylist()) == (ids, similarities)
    assert {own for row in some["own"].to_pylist() for own in row} == {wanted == "own"}
    assert (folder / "captions.parquet").read_bytes() == artifacts.CAPTIONS.read_bytes(), "numbers stay those of the whole table"


def test_a_recipe_without_captions_does_not_change_with_them():
    make_training_captions("gpr", wanted=None)
    first = written("gpr")
    assert list(first) == NAMES
    for name in NAMES:
        table = pq.read_table(artifacts.training_captions_dir("gpr") / name)
        assert table.num_rows == 0
        assert table.schema == pq.read_schema(artifacts.PSEUDO_CAPTIONS / name)
    write_captions(["red", "green", "yellow"])
    make_training_captions("gpr", wanted=None)
    assert written("gpr") == first


def test_what_was_there_before_is_replaced():
    make_training_captions("gpr", wanted="both")
    (artifacts.training_captions_dir("gpr") / "old.parquet").touch()
    make_training_captions("gpr", wanted=None)
    assert list(written("gpr")) == NAMES
    assert [each.name for each in artifacts.TRAINING_CAPTIONS.iterdir()] == ["gpr"]


def test_a_missing_table_leaves_the_old_ones():
    make_training_captions("mcip", wanted="both")
    first = written("mcip")
    artifacts.IMAGE_CAPTIONS.unlink()
    with pytest.raises(FileNotFoundError, match="image_captions"):
        make_training_captions("mcip", wanted="both")
    assert written("mcip") == first


def test_it_loads_no_torch(checkout: Path):
    code = "import sys, assets.training_captions.stage; sys.exit(','.join({'torch', 'open_clip'} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True)
