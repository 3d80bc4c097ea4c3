"""A split's hash stands for all that decides what its pictures show."""

import os
from pathlib import Path

from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.split import Split
from assets.pictures.table import writing_rows
from tests.pictures.pictures import png


def write(table: Path, *rows: tuple[str, str, bytes]) -> None:
    with writing_rows(table, CURATED_SCHEMA) as add:
        for name, split, image in rows:
            shared = {"label": "a", "class_name": "a", "group": None, "captions": [], "source": "s", "license": "l", "attribution": "b"}
            add({"id": name, "image": image, "split": split, "width": 4, "height": 4, "sha256": "0" * 64, **shared})


def test_its_pictures_come_in_order_and_open(tmp_path):
    red, blue = png((255, 0, 0), (4, 4)), png((0, 0, 255), (4, 4))
    write(tmp_path / "t", ("1", "train", red), ("2", "test", blue), ("3", "train", blue))
    train = Split(tmp_path / "t", "train")
    assert len(train) == 2
    assert [train.open(item).getpixel((0, 0)) for item in train.items()] == [(255, 0, 0), (0, 0, 255)]


def test_its_digests_follow_the_pictures_alone(tmp_path):
    """Of the whole table, one new picture had all embedded again; of names alone, new pictures would get old embeddings."""
    table = tmp_path / "t"
    red, blue = png((255, 0, 0), (4, 4)), png((0, 0, 255), (4, 4))
    write(table, ("1", "train", red), ("2", "test", red))
    first = Split(table, "train").digests()
    assert first == Split(table, "test").digests()
    (shard,) = table.iterdir()
    before = shard.stat()
    shard.unlink()
    table.rmdir()
    write(table, ("1", "train", blue), ("2", "test", red))
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert Split(table, "train").digests() != first
    assert Split(table, "test").digests() == first
