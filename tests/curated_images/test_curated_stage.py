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
from assets import kept as store
from assets.curated_images import stage
from assets.curated_images.stage import make_curated_images
from assets.errors import UserError
from assets.pictures import table
from assets.pictures.apart import Apart
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA, SPLITS
from assets.pictures.table import read_batches, read_schema, shards, writing_rows

LIMITS = {"rejected": 0.2, "sizes": 0.2, "brightness": 0.2, "captions": 0.2, "unlike": 0.2}
SETTINGS = params.CuratedImages(
    seed=0,
    max_megapixels=1.0,
    max_decode_seconds=20.0,
    min_side=8,
    max_aspect_ratio=None,
    blank_range=None,
    licenses=None,
    max_caption_characters=200,
    boilerplate_captions=[],
    near_duplicates="list",
    near_duplicate_bits=40,
    min_images_per_class=2,
    test_fraction=0.4,
    validation_classes=0.15,
    validation_pictures=0.2,
    min_difference_to_test=0.02,
    drop=params.Drop(warn=LIMITS, block={"rejected": 0.5, "brightness": 0.9}, min_pictures=20, accepted=None),
)


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))


def row(name: str, image: bytes, label: str | None, captions: tuple[str, ...] = ()) -> dict[str, Any]:
    shared = {"group": None, "family": None, "given_split": None, "source": "image_folder", "license": "CC0-1.0", "attribution": "me"}
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
    return {path.as_posix() for path in found if not {artifacts.SOURCE_IMAGES, store.FOLDER} & set(path.parents)}


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
    outputs = (
        artifacts.CURATED_IMAGES,
        artifacts.REJECTED_IMAGES,
        artifacts.EXPECTATIONS,
        artifacts.NEAREST,
        artifacts.DROP,
        artifacts.NOTES,
    )
    first = {path: artifacts.sha256_of(path) for path in outputs}
    make_curated_images(SETTINGS)
    assert {path: artifacts.sha256_of(path) for path in first} == first
    written = (*shards(artifacts.CURATED_IMAGES), *outputs[1:], artifacts.LAST_EXPECTATIONS, artifacts.LAST_DROP)
    assert files_left() == {path.as_posix() for path in written}


def test_failed_expectations_stop_the_stage_and_stay_readable():
    unnamed = row("f/1.png", encode(noise(1)), "f") | {"class_name": " "}
    write_source([*good_rows(), unnamed, row("f/2.png", encode(noise(2)), "f")])
    with pytest.raises(
        UserError,
        match=r"a labelled image has a class name: not so for 1 image\(s\), such as f/1\.png.*\.cache/curated_images/expectations\.json",
    ):
        make_curated_images(SETTINGS)
    result = json.loads(artifacts.LAST_EXPECTATIONS.read_text())
    assert not result["success"]
    assert result["statistics"]["unsuccessful"] == 1
    assert files_left() == {artifacts.LAST_EXPECTATIONS.as_posix(), artifacts.LAST_DROP.as_posix()}


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
    with writing_rows(stage.ENCODED, stage.ENCODED_SCHEMA) as write:
        write({"id": "a/0.png", "image": b"of a run before"})
    (stage.ENCODED / "00001.parquet").write_bytes(b"torn")
    write_source(good_rows())
    make_curated_images(SETTINGS)
    assert {each["id"] for each in read_all(artifacts.CURATED_IMAGES)} == {each["id"] for each in good_rows()}
    assert not stage.ENCODED.exists()


def smooth(seed: int) -> Image.Image:
    """A picture that survives JPEG and resizing, as a photograph does; noise does not."""
    return noise(seed).crop((0, 0, 8, 6)).resize((120, 90), Image.Resampling.BICUBIC)


def splits_of_ids() -> dict[str, str]:
    return {each["id"]: each["split"] for each in read_all(artifacts.CURATED_IMAGES)}


def test_a_copy_of_a_test_picture_in_another_size_or_format_leaves_training():
    """342 test pictures of the demo had a training picture that differed by less than 2 %."""
    rows = [row(f"{label}/{n}.png", encode(smooth(100 * ord(label) + n)), label) for label in "abcdefgh" for n in range(6)]
    write_source(rows)
    make_curated_images(SETTINGS)
    before = splits_of_ids()
    tested, trained = (sorted({each[0] for each, split in before.items() if split == wanted}) for wanted in ("test", "train"))
    of_test = smooth(100 * ord(tested[0]))
    copies = [
        row(f"{trained[0]}/again.jpg", encode(of_test, "JPEG", quality=60), trained[0]),
        row(f"{trained[1]}/larger.png", encode(of_test.resize((300, 225))), trained[1]),
        row(f"{trained[1]}/smaller.webp", encode(of_test.resize((60, 45)), "WEBP"), trained[1]),
        row(f"{trained[1]}/turned.png", encode(of_test.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), trained[1]),
    ]
    write_source([*rows, *copies, row("copy.jpg", encode(of_test, "JPEG", quality=50), None)])
    make_curated_images(SETTINGS)
    assert splits_of_ids() == before | {"copy.jpg": "library"}, "nobody else moves"
    rejected = {each["id"]: each for each in pq.read_table(artifacts.REJECTED_IMAGES).to_pylist()}
    assert rejected.keys() == {each["id"] for each in copies}
    assert {each["reason"] for each in rejected.values()} == {"near_test"}
    shown = dict.fromkeys(rejected, f"nearly the same pixels as the test picture {tested[0]}/0.png of class {tested[0]}")
    shown[f"{trained[1]}/turned.png"] = f"nearly the mirror image of the test picture {tested[0]}/0.png of class {tested[0]}"
    assert {name: each["detail"] for name, each in rejected.items()} == shown

    make_curated_images(SETTINGS.model_copy(update={"min_difference_to_test": 0.0}))
    assert splits_of_ids().keys() == before.keys() | {"copy.jpg"} | rejected.keys()
    nearest = {each["id"]: each for each in pq.read_table(artifacts.NEAREST).to_pylist()}
    assert nearest.keys() == {each for each, split in before.items() if split == "test"}
    found = nearest[f"{tested[0]}/0.png"]
    assert found["nearest"] in rejected
    assert found["correlation"] > 0.99
    assert found["difference"] < 0.02
    assert max(each["correlation"] for name, each in nearest.items() if name != f"{tested[0]}/0.png") < 0.98


@pytest.mark.parametrize("new_classes", [1, 10, 100])
def test_growth_changes_no_old_picture(new_classes):
    rows = [row(f"c{label}/{n}.png", encode(noise(9 * label + n)), f"c{label}") for label in range(40) for n in range(4)]
    write_source(rows)
    make_curated_images(SETTINGS)
    before = splits_of_ids()
    more = [row(f"n{label}/{n}.png", encode(noise(5000 + 9 * label + n)), f"n{label}") for label in range(new_classes) for n in range(3)]
    more += [row(f"c{n % 40}/new{n}.png", encode(noise(9000 + n)), f"c{n % 40}") for n in range(50)]
    write_source([*rows, *more])
    make_curated_images(SETTINGS)
    after = splits_of_ids()
    assert {each: after[each] for each in before} == before
    assert len(after) == len(before) + 3 * new_classes + 50


def test_the_copy_with_a_label_then_with_captions_stays_whatever_the_alphabet_says():
    """30 labels once went without a word: the same pictures lay in the library, which comes first in the alphabet."""
    rows = good_rows()
    library = [row(f"IMG_{n}.png", each["image"], None, ("seen on holiday",) if n == 0 else ()) for n, each in enumerate(rows)]
    again = row("a/0 again.png", rows[0]["image"], "a", ("another word", "a thing"))
    bare = row("b/ bare.png", encode(noise(100 * ord("b")), "BMP"), "b")
    write_source([*rows, *library, again, bare])
    make_curated_images(SETTINGS)
    kept = {each["id"]: each for each in read_all(artifacts.CURATED_IMAGES)}
    assert kept.keys() == {each["id"] for each in rows if each["id"] != "a/0.png"} | {"a/0 again.png"}
    assert kept["a/0 again.png"]["captions"] == ["another word", "a thing", "a", "seen on holiday"]
    assert kept["b/0.png"]["captions"] == ["a thing", "b"]


def test_a_family_is_the_class_where_the_source_gives_none():
    rows = [each | {"family": "vowels" if each["label"] in "ae" else None} for each in good_rows()]
    write_source([*rows, row("free.png", encode(noise(1)), None)])
    make_curated_images(SETTINGS)
    families = {each["label"]: each["family"] for each in read_all(artifacts.CURATED_IMAGES)}
    assert families == {"a": "vowels", "b": "b", "c": "c", "d": "d", "e": "vowels", None: None}


def test_a_class_has_one_family_over_all_sources():
    """One source gave owls the family birds, another gave them none: they were trained on and tested with."""
    rows = good_rows()
    for number, each in enumerate(rows):
        if each["label"] == rows[0]["label"]:
            each["family"] = "birds" if number % 2 else None
    rows[0]["family"] = "birds"
    write_source(rows)
    make_curated_images(SETTINGS)
    kept = read_all(artifacts.CURATED_IMAGES)
    assert {row["family"] for row in kept if row["label"] == rows[0]["label"]} == {"birds"}
    assert all(row["family"] == row["label"] for row in kept if row["label"] not in (None, rows[0]["label"]))
    next(each for each in rows if each["label"] == rows[0]["label"] and each["family"] is None)["family"] = "cats"
    write_source(rows)
    with pytest.raises(UserError, match="is of two families: birds"):
        make_curated_images(SETTINGS)


def test_a_given_split_is_honoured_with_its_classes_on_both_sides():
    rows = [each | {"given_split": ("train", "train", "train", "validation", "test")[int(each["id"][2])]} for each in good_rows()]
    twin = row("b/again.bmp", encode(noise(100 * ord("b") + 4), "BMP"), "b") | {"given_split": "train"}
    write_source([*rows, twin])
    make_curated_images(SETTINGS)
    assert splits_of_ids() == {each["id"]: each["given_split"] for each in rows}, "and the test picture stays, not its copy to train on"


def test_of_a_grown_source_the_new_pictures_alone_are_decoded(monkeypatch):
    """Every run decoded everything: a hundred new pictures cost as much as ten thousand."""
    rows = good_rows() + odd_rows()
    write_source(rows)
    make_curated_images(SETTINGS)
    looked, real = [], Apart.map

    def counting(self, pictures):
        pictures = list(pictures)
        looked.extend(pictures)
        return real(self, pictures)

    monkeypatch.setattr(Apart, "map", counting)
    new = [row(f"{label}/new.png", encode(noise(7000 + number)), label) for number, label in enumerate("abc")]
    moved = [each | {"id": f"moved/{each['id']}"} for each in rows if each["id"].startswith("c/")]
    gone = [each for each in rows if not each["id"].startswith(("c/", "d/"))]
    write_source([*gone, *moved, *new])
    make_curated_images(SETTINGS)
    assert sorted(looked) == sorted(each["image"] for each in new)
    outputs = (artifacts.CURATED_IMAGES, artifacts.REJECTED_IMAGES, artifacts.EXPECTATIONS, artifacts.NEAREST, artifacts.NOTES)
    known = [artifacts.sha256_of(path) for path in outputs]
    shutil.rmtree(store.FOLDER)
    make_curated_images(SETTINGS)
    assert [artifacts.sha256_of(path) for path in outputs] == known
    looked.clear()
    make_curated_images(SETTINGS.model_copy(update={"min_side": SETTINGS.min_side + 1}))
    assert len(looked) == len({each["image"] for each in [*gone, *moved, *new]})
