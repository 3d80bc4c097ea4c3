"""Planted copies are found, other pictures are not; what stays is the more useful one; benchmarks are not trained on."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance, ImageOps

from assets import artifacts
from assets.curated_images.fingerprint import BYTES, VIEWS, fingerprint
from assets.curated_images.near_duplicates import NEIGHBOURS, TABLES, near_pairs
from assets.curated_images.stage import make_curated_images
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import read_batches, writing_rows
from tests.curated_images.test_curated_stage import SETTINGS, row

COPIES = {
    "saved again": lambda picture: picture,
    "a quarter": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "cropped": lambda picture: picture.crop((8, 6, picture.width, picture.height)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "mirrored": ImageOps.mirror,
}


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def photograph(seed: int) -> Image.Image:
    """Smooth light and details, as a photograph has."""
    chance = np.random.default_rng(seed)
    coarse, fine = (Image.fromarray(chance.integers(40, 216, (side, side, 3), dtype=np.uint8)) for side in (4, 14))
    return Image.blend(*(each.resize((160, 120), Image.Resampling.BICUBIC) for each in (coarse, fine)), 0.5)


def saved(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=70)
    return stream.getvalue()


def prints_of(pictures: list[Image.Image]) -> np.ndarray:
    return np.frombuffer(b"".join(map(fingerprint, pictures)), np.uint8).reshape(-1, VIEWS, BYTES)


def test_copies_are_found_and_nothing_else():
    originals = [photograph(seed) for seed in range(60)]
    copies = [Image.open(io.BytesIO(saved(make(originals[seed])))) for seed in range(0, 60, 2) for make in COPIES.values()]
    prints = prints_of(originals + copies)
    found = near_pairs(prints, prints, 40)
    of_originals = found.rows < 60
    pairs = set(zip(found.queries[of_originals].tolist(), found.rows[of_originals].tolist(), strict=True))
    assert pairs == {(60 + number, number // len(COPIES) * 2) for number in range(len(copies))}
    assert (np.diff(found.queries) >= 0).all()


def test_pictures_without_a_drawing_look_like_none():
    flat = [Image.new("RGB", (40, 40), colour) for colour in ("red", "white", "black")]
    prints = prints_of([*flat, photograph(0)])
    assert not len(near_pairs(prints, prints, 64).queries)


def test_many_pictures_that_are_all_alike_meet_the_first_ones_alone():
    """A film of 20,000 like frames would have 200 million pairs."""
    chance = np.random.default_rng(0)
    one = chance.integers(0, 256, (VIEWS, BYTES), dtype=np.uint8)
    prints = np.repeat(one[None], 2000, axis=0)
    prints[np.arange(2000), :, chance.integers(0, BYTES, 2000)] ^= 1
    found = near_pairs(prints, prints, 40)
    assert len(found.queries) < 2000 * NEIGHBOURS * TABLES / 4
    assert set(found.queries.tolist()) == set(range(1, 2000)), "each has one before it that it looks like"


def curate(rows: list[dict], benchmarks: Path | None = None, **settings: object) -> dict[str, dict]:
    shutil.rmtree(artifacts.SOURCE_IMAGES, ignore_errors=True)
    with writing_rows(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA) as write:
        for each in sorted(rows, key=lambda each: each["id"]):
            write(each)
    make_curated_images(SETTINGS.model_copy(update=settings), benchmarks)
    names = ["id", "label", "split", "captions", "license"]
    return {each["id"]: each for batch in read_batches(artifacts.CURATED_IMAGES, names, 100) for each in batch.to_pylist()}


def table(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def rows_with_copies() -> list[dict]:
    rows = [row(f"{label}/{n}.jpg", saved(photograph(100 * ord(label) + n)), label, ("a word",)) for label in "abcdefgh" for n in range(4)]
    first = photograph(100 * ord("a"))
    return [
        *rows,
        row("0 library.jpg", saved(ImageOps.mirror(first)), None),
        row("a/0 small.jpg", saved(first.resize((80, 60))), "a", ("a word",)),
        row("b/of another class.jpg", saved(ImageEnhance.Brightness(first).enhance(1.2)), "b", ("a word",)),
    ]


def test_near_duplicates_are_listed_with_their_conflicts_and_nothing_leaves():
    kept = curate(rows_with_copies(), min_difference_to_test=0.0)
    assert len(kept) == len(rows_with_copies())
    notes = {(each["id"], each["note"]): each for each in table(artifacts.NOTES)}
    like = {name: each["other"] for (name, note), each in notes.items() if note == "near_duplicate"}
    assert like.keys() == {"0 library.jpg", "a/0 small.jpg", "b/of another class.jpg"}
    assert like["a/0 small.jpg"] == "a/0.jpg", "the labelled, larger one comes first"
    conflict = notes["b/of another class.jpg", "label_conflict"]
    assert conflict["detail"].startswith("looks like a/0.jpg of class a; this one is of class b (")
    across = kept["b/of another class.jpg"]["split"] != kept["a/0.jpg"]["split"] and "test" in {
        kept[n]["split"] for n in ("a/0.jpg", "b/0.jpg")
    }
    assert (("b/of another class.jpg", "across_splits") in notes) == across


def test_all_but_the_most_useful_copy_leave_where_that_is_asked():
    kept = curate(rows_with_copies(), near_duplicates="drop")
    rejected = {each["id"]: each for each in table(artifacts.REJECTED_IMAGES)}
    assert {name: each["reason"] for name, each in rejected.items()} == dict.fromkeys(
        ("0 library.jpg", "a/0 small.jpg", "b/of another class.jpg"), "near_duplicate"
    )
    assert "a/0.jpg" in kept
    assert rejected["b/of another class.jpg"]["detail"].startswith("looks like a/0.jpg of class a; this one is of class b (")
    assert not table(artifacts.NOTES)


def test_a_training_picture_that_looks_like_a_benchmarks_leaves_training(tmp_path):
    rows = rows_with_copies()[:-3]
    splits = {name: each["split"] for name, each in curate(rows).items()}
    trained = sorted(name for name, split in splits.items() if split in ("train", "validation"))
    tested = sorted(name for name, split in splits.items() if split == "test")
    images = {each["id"]: each["image"] for each in rows}
    folder = tmp_path / "benchmarks" / "some" / "images"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(saved(ImageOps.mirror(Image.open(io.BytesIO(images[trained[0]])))))
    (folder / "2.png").write_bytes(images[tested[0]])
    (folder / "broken.jpg").write_bytes(b"no picture")
    kept = curate(rows, tmp_path / "benchmarks")
    assert {name: each["split"] for name, each in kept.items()} == {name: split for name, split in splits.items() if name != trained[0]}
    (gone,) = table(artifacts.REJECTED_IMAGES)
    assert (gone["id"], gone["reason"]) == (trained[0], "near_benchmark")
    assert gone["detail"].startswith("looks like some/images/1.jpg of a public benchmark (")
    assert len(curate(rows, tmp_path / "benchmarks", near_duplicates="ignore")) == len(rows)


def test_licences_and_captions_are_filtered():
    rows = rows_with_copies()[:-3]
    rows[0] |= {"license": "all rights reserved"}
    rows[1] |= {"captions": ["", "IMG_1234.jpg", "a\u200b red\tball\x07", "long " * 60, "🏴\U000e0067\U000e007f 👩\u200d💻"]}
    kept = curate(rows, licenses=["CC0-1.0"], boilerplate_captions=[r"img_\d+\.jpg"])
    (gone,) = table(artifacts.REJECTED_IMAGES)
    assert (gone["id"], gone["reason"], gone["detail"]) == ("a/0.jpg", "license", "its licence is all rights reserved; allowed are CC0-1.0")
    captions = kept["a/1.jpg"]["captions"]
    assert captions == ["a red ball", ("long " * 40).strip(), "🏴\U000e0067\U000e007f 👩\u200d💻"]
    notes = sorted(each["note"] for each in table(artifacts.NOTES) if each["id"] == "a/1.jpg")
    assert notes == ["caption_cleaned", "caption_cut", "caption_dropped", "caption_dropped"]
