"""The stage with each kind of source: which rows it writes, and what an error leaves behind."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import get_args

import pytest

from assets import artifacts, params
from assets.errors import UserError
from assets.pictures import table as tables
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import read_batches, read_schema, shards
from assets.source_images import stage
from assets.source_images.image_folder import read_image_folder
from assets.source_images.stage import make_source_images


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "my pictures"
    for name in ("owl/1.jpg", "owl/2.jpg", "fox/1.png", "fox/2.png", "fox/3.png", "alone.gif"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    return root


def folder(root: Path) -> params.SourceImages:
    return params.SourceImages(
        sources=[params.ImageFolder(kind="image_folder", root=str(root), folders=["label"], license="CC0-1.0", attribution="me")]
    )


def written() -> list[dict[str, object]]:
    return [row for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, 100) for row in batch.to_pylist()]


def test_a_folder_gives_the_same_table_every_time(root, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", 2)
    make_source_images(folder(root))
    assert [path.name for path in shards(artifacts.SOURCE_IMAGES)] == ["00000.parquet", "00001.parquet"]
    assert read_schema(artifacts.SOURCE_IMAGES) == IMAGES_SCHEMA
    assert written() == list(read_image_folder(root, "CC0-1.0", "me", ["label"]))
    first = artifacts.sha256_of(artifacts.SOURCE_IMAGES)
    make_source_images(folder(root))
    assert artifacts.sha256_of(artifacts.SOURCE_IMAGES) == first


def test_fewer_pictures_leave_no_shard_of_the_table_before(root, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", 1)
    make_source_images(folder(root))
    assert len(shards(artifacts.SOURCE_IMAGES)) == 3
    shutil.rmtree(root / "fox")
    make_source_images(folder(root))
    assert [row["id"] for row in written()] == ["alone.gif", "owl/1.jpg", "owl/2.jpg"]
    assert len(shards(artifacts.SOURCE_IMAGES)) == 2


def test_an_error_leaves_the_earlier_table_and_nothing_else(root):
    make_source_images(folder(root))
    before = artifacts.sha256_of(artifacts.SOURCE_IMAGES)
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("path", "caption"), ("absent.jpg", "x")])
    with pytest.raises(UserError, match="names 1 picture"):
        make_source_images(folder(root))
    assert artifacts.sha256_of(artifacts.SOURCE_IMAGES) == before
    assert list(artifacts.SOURCE_IMAGES.parent.iterdir()) == [artifacts.SOURCE_IMAGES]


def test_emoji_are_pinned_by_the_files_in_the_sources_root(tmp_path):
    """The root, wherever it is, is what dvc watches: no other folder may decide which drawings are fetched."""
    source = params.Emoji(kind="emoji", root="elsewhere/emoji", size=96, vendors=["noto"])
    with pytest.raises(UserError, match=r"no elsewhere/emoji/package\.json"):
        make_source_images(params.SourceImages(sources=[source]))
    assert not artifacts.SOURCE_IMAGES.exists()


def test_every_kind_of_source_that_params_allow_can_be_read():
    """A kind that params.py knows and the stage does not fails after dvc has hashed all the pictures."""
    assert set(params.VARIANTS["source_images"]) == {"emoji", *stage.LISTED}
    assert len(get_args(get_args(params.Source)[0])) == len(params.VARIANTS["source_images"])
