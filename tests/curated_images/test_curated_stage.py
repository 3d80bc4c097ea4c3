"""The whole stage on small source tables with good, broken and hostile images."""

import json
import shutil
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets import artifacts, params
from assets.curated_images import stage
from assets.curated_images.stage import make_curated_images
from assets.errors import UserError
from assets.pictures import table
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA, SPLITS
from assets.pictures.table import read_batches, read_schema, shards, writing_rows

SETTINGS = params.CuratedImages(
    seed=0,
    max_megapixels=1.0,
    min_side=8,
    min_images_per_class=2,
    test_fraction=0.4,
    validation_classes=0.15,
    validation_pictures=0.2,
)


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))


def row(name: str, image: bytes, label: str | None, captions: tuple[str, ...] = ()) -> dict[str, Any]:
    shared = {"group": None, "source": "image_folder", "license": "CC0-1.0", "attribution": "me"}
    return shared | {"id": name, "image": image, "label": label, "class_name": label or "", "captions": list(captions)}


def good_rows() -> list[dict[str, Any]]:
    return [row(f"{label}/{n}.png", encode(noise(100 * ord(label) + n)), label, ("a thing", label)) for label in "abcde" for n in range(5)]


def odd_rows() -> list[dict[str, Any]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n\0\0\0\r"
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\0\0IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    palette = noise(7).quantize(4)
    frames = [noise(8), noise(9)]
    return [
        row("a/alpha.png", encode(Image.new("RGBA", (16, 12), (9, 9, 200, 77))), "a"),
        row("a/cmyk.jpg", encode(noise(1).convert("CMYK"), "JPEG"), "a"),
        row("a/deep.png", encode(Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)), "a"),
        row("a/film.gif", encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "a"),
        row("a/lying.jpg", encode(noise(2), "JPEG", exif=exif), "a"),
        row("a/palette.png", encode(palette, transparency=1), "a"),
        # rejected
        row("a/bomb.png", bomb, "a"),
        row("a/copy.bmp", encode(noise(100 * ord("a")), "BMP"), "a"),
        row("a/empty.png", b"", "a"),
        row("a/text.jpg", b"no picture", "a"),
        row("a/tiny.png", encode(Image.new("RGB", (7, 100))), "a"),
        row("a/torn.jpg", encode(noise(3), "JPEG")[:-200], "a"),
        row("b/0.png", encode(noise(55)), "b"),  # the id a second time
        row("b/zz.png", encode(noise(100 * ord("a") + 1)), "b"),  # a picture of class a
        row("lonely/1.png", encode(noise(4)), "lonely"),
        row("twins/1.png", encode(noise(5)), "twins"),
        row("twins/2.webp", encode(noise(5), "WEBP", lossless=True), "twins"),
        # library
        row("zebra.png", encode(noise(6)), None),
        row("zebra2.png", encode(noise(6)), None),
    ]


REJECTED = {
    "a/bomb.png": "too_large",
    "a/copy.bmp": "duplicate",
    "a/empty.png": "undecodable",
    "a/text.jpg": "undecodable",
    "a/tiny.png": "too_small",
    "a/torn.jpg": "undecodable",
    "b/0.png": "duplicate_id",
    "b/zz.png": "duplicate",
    "lonely/1.png": "class_too_small",
    "twins/1.png": "class_too_small",
    "twins/2.webp": "duplicate",
    "zebra2.png": "duplicate",
}


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_source(rows: list[dict[str, Any]], *, ordered: bool = True) -> None:
    rows = sorted(rows, key=lambda each: each["id"]) if ordered else rows
    shutil.rmtree(artifacts.SOURCE_IMAGES, ignore_errors=True)
    with writing_rows(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA) as write:
        for each in rows:
            write(each)


def read_all(path: Path) -> list[dict[str, Any]]:
    return [row for batch in read_batches(path, read_schema(path).names, 100) for row in batch.to_pylist()]


def files_left() -> set[str]:
    found = [path for path in artifacts.DATA.parent.rglob("*") if path.is_file()]
    return {path.as_posix() for path in found if artifacts.SOURCE_IMAGES not in path.parents}


def test_every_image_is_kept_or_rejected_with_a_reason(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(table, "ROWS_PER_GROUP", 10)
    monkeypatch.setattr(table, "GROUPS_PER_SHARD", 2)
    monkeypatch.setattr(stage, "ROWS_PER_BATCH", 4)
    source = good_rows() + odd_rows()
    write_source(source)
    make_curated_images(SETTINGS)

    rejected = pq.read_table(artifacts.REJECTED_IMAGES).to_pylist()
    assert {each["id"]: each["reason"] for each in rejected} == REJECTED
    assert len(rejected) == len(REJECTED)
    details = {each["id"]: each["detail"] for each in rejected}
    assert details["a/copy.bmp"] == "same pixels as a/0.png"
    assert details["b/zz.png"] == "same pixels as a/1.png of class a; this one is of class b"
    assert details["zebra2.png"] == "same pixels as zebra.png"

    assert read_schema(artifacts.CURATED_IMAGES) == CURATED_SCHEMA
    files = [pq.read_metadata(shard) for shard in shards(artifacts.CURATED_IMAGES)]
    # row groups are full across the ends of splits
    assert [[file.row_group(n).num_rows for n in range(file.num_row_groups)] for file in files] == [[10, 10], [10, 2]]
    kept = read_all(artifacts.CURATED_IMAGES)
    assert len(kept) + len(rejected) == len(source)
    order = [(SPLITS.index(each["split"]), each["id"]) for each in kept]
    assert order == sorted(order)
    assert {each["id"] for each in kept if each["split"] == "library"} == {"zebra.png"}
    for each in kept:
        picture = Image.open(BytesIO(each["image"])).convert("RGB")
        assert picture.size == (each["width"], each["height"])
    found = {each["id"]: each for each in kept}
    assert (found["a/lying.jpg"]["width"], found["a/lying.jpg"]["height"]) == (12, 16)
    assert found["b/1.png"]["captions"] == ["a thing", "b"]
    assert found["b/1.png"]["image"] == encode(noise(100 * ord("b") + 1))

    assert json.loads(artifacts.EXPECTATIONS.read_text())["success"]
    assert artifacts.LAST_EXPECTATIONS.read_bytes() == artifacts.EXPECTATIONS.read_bytes()
    assert "read 44, rejected 12: 2 class_too_small, 4 duplicate, 1 duplicate_id, 1 too_large, 1 too_small, 3 undecodable" in caplog.text
    assert "kept 32: " in caplog.text
    assert "1 library" in caplog.text
    first = {path: artifacts.sha256_of(path) for path in (artifacts.CURATED_IMAGES, artifacts.REJECTED_IMAGES, artifacts.EXPECTATIONS)}
    make_curated_images(SETTINGS)
    assert {path: artifacts.sha256_of(path) for path in first} == first
    written = (*shards(artifacts.CURATED_IMAGES), artifacts.REJECTED_IMAGES, artifacts.EXPECTATIONS, artifacts.LAST_EXPECTATIONS)
    assert files_left() == {path.as_posix() for path in written}


def test_failed_expectations_stop_the_stage_and_stay_readable():
    write_source([*good_rows(), row("f/1.png", encode(noise(1)), "f", ("fine", " ")), row("f/2.png", encode(noise(2)), "f")])
    with pytest.raises(
        UserError, match=r"captions are not empty: not so for 1 image\(s\), such as f/1\.png.*\.cache/curated_images/expectations\.json"
    ):
        make_curated_images(SETTINGS)
    result = json.loads(artifacts.LAST_EXPECTATIONS.read_text())
    assert not result["success"]
    assert result["statistics"]["unsuccessful"] == 1
    assert files_left() == {artifacts.LAST_EXPECTATIONS.as_posix()}


def test_nothing_usable():
    write_source([row("a/1.png", b"", "a"), row("a/2.png", b"text", "a"), row("b/1.png", encode(noise(1)), "b")])
    with pytest.raises(UserError) as caught:
        make_curated_images(SETTINGS)
    message = str(caught.value)
    assert "0 class(es) with enough usable pictures: none. At least 2 are needed" in message
    assert "3 picture(s) were rejected: 1 class_too_small (b/1.png: class b has 1 usable picture(s)" in message
    assert "2 undecodable (a/1.png: no bytes: the file is empty, or could not be read; a/2.png: not a JPEG" in message
    assert files_left() == set()


def test_a_source_of_another_form():
    write_source(list(reversed(good_rows())), ordered=False)
    with pytest.raises(UserError, match="is not in order of id"):
        make_curated_images(SETTINGS)
    (shard,) = shards(artifacts.SOURCE_IMAGES)
    pq.write_table(pa.table({"id": ["1"]}), shard)
    with pytest.raises(UserError, match="has other columns than this version reads"):
        make_curated_images(SETTINGS)
    shard.write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"00000\.parquet is not a readable Parquet file"):
        make_curated_images(SETTINGS)
    assert files_left() == set()


def test_what_a_killed_run_left_behind_is_in_nobodys_way():
    with writing_rows(stage.USABLE, stage.USABLE_SCHEMA) as write:
        write({"id": "a/0.png", "image": b"of a run before"})
    (stage.USABLE / "00001.parquet").write_bytes(b"torn")
    write_source(good_rows())
    make_curated_images(SETTINGS)
    assert {each["id"] for each in read_all(artifacts.CURATED_IMAGES)} == {each["id"] for each in good_rows()}
    assert not stage.USABLE.exists()
