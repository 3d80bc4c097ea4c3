"""The whole stage on some two hundred files of every hazard, and on mutations: each is kept rightly or rejected with its own reason."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets import artifacts, params
from assets.curated_images import inspection
from assets.curated_images.inspection import Inspector, Usable, inspect_all
from assets.curated_images.stage import make_curated_images
from assets.engine import HERE
from assets.pictures.apart import Apart
from assets.pictures.decoding import BadPicture
from assets.pictures.opening import decoders
from assets.pictures.schema import IMAGES_SCHEMA
from assets.pictures.table import read_batches, writing_rows
from tests.curated_images.test_curated_stage import SETTINGS, good_rows, row
from tests.pictures.hostile import Case, cases, mutations

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # about odd metadata of what is kept
HOSTILE = SETTINGS.model_copy(update={"max_aspect_ratio": 20.0, "blank_range": 4})
REASONS = {"undecodable", "unsupported", "too_large", "too_small", "too_long", "blank", "crashed", "too_slow"}


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def curate(files: dict[str, bytes], settings: params.CuratedImages) -> tuple[dict[str, bytes], dict[str, str], dict[str, set[str]]]:
    """Kept bytes, reasons of the rejected, and notes by id, of library pictures beside some good classes."""
    rows = sorted([*good_rows(), *(row(name, data, None) for name, data in files.items())], key=lambda each: each["id"])
    with writing_rows(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA) as write:
        for each in rows:
            write(each)
    make_curated_images(settings)
    kept = {
        name: image
        for batch in read_batches(artifacts.CURATED_IMAGES, ["id", "image"], 100)
        for name, image in zip(batch["id"].to_pylist(), batch["image"].to_pylist(), strict=True)
    }
    rejected = pq.read_table(artifacts.REJECTED_IMAGES).to_pylist()
    assert len(kept) + len(rejected) == len(rows), "kept + rejected = read"
    notes: dict[str, set[str]] = {}
    for note in pq.read_table(artifacts.NOTES).to_pylist():
        notes.setdefault(note["id"], set()).add(note["note"])
    return kept, {each["id"]: each["reason"] for each in rejected}, notes


def wrong(case: Case, kept: bytes) -> str | None:
    picture = Image.open(BytesIO(kept)).convert("RGB")  # all that a reader has to do
    if picture.size != case.size:
        return f"{case.name}: {picture.size} instead of {case.size}"
    width, height = picture.size
    found = [picture.getpixel((round(width * across), round(height * down))) for down in (0.25, 0.75) for across in (0.25, 0.75)]
    off = np.abs(np.array(found) - np.array(case.colours)).max()
    return f"{case.name}: {found} instead of {case.colours}" if off > case.tolerance else None


def test_every_hostile_file_is_kept_rightly_or_rejected_with_its_own_reason():
    """Wide-gamut photographs lost up to 70 of 255 levels; a web page named .jpg, a video and a cut file had one reason in common."""
    given = {f"case {number:03}": case for number, case in enumerate(cases())}
    assert len(given) >= (150 if None in decoders().values() else 200)
    kept, reasons, notes = curate({name: case.data for name, case in given.items()}, HOSTILE)
    assert {case.name: reasons.get(name) for name, case in given.items()} == {case.name: case.reason for case in given.values()}
    assert not [found for name, case in given.items() if case.reason is None and (found := wrong(case, kept[name]))]
    ours = {"several_frames", "profile_ignored"}
    assert {case.name: notes.get(name, set()) & ours for name, case in given.items() if name in kept} == {
        case.name: {case.note} - {None} for name, case in given.items() if name in kept
    }


def test_mutated_files_are_kept_readable_or_rejected():
    files = list(mutations(600, seed=0))
    how = {"max_pixels": 1_000_000, "min_side": 1}
    (found,) = inspect_all([(files, [hashlib.sha256(data).digest() for data in files])], Inspector(how, max_seconds=20), HERE)
    assert len(found) == len(files)
    kept = [each for each in found if isinstance(each, Usable)]
    assert 100 < len(kept) < 500, "some mutations are harmless, some are not"
    for data, each in zip(files, found, strict=True):
        if isinstance(each, BadPicture):
            continue
        assert Image.open(BytesIO(each.image or data)).convert("RGB").size == (each.width, each.height)
    assert {each.reason for each in found if isinstance(each, BadPicture)} <= REASONS


@pytest.mark.parametrize(("look", "reason"), [(inspection.LOOK, "undecodable"), ("tests.pictures.hazards:open_or_die", "crashed")])
def test_a_picture_that_the_next_batch_has_too_is_looked_at_once(monkeypatch, look, reason):
    """A batch begins before the one before it is known: what both have was decoded twice, or missed where its decoder crashed."""
    monkeypatch.setattr(inspection, "LOOK", look)
    looked: list[bytes] = []
    real = Apart.map
    monkeypatch.setattr(Apart, "map", lambda apart, pictures: looked.extend(pictures) or real(apart, pictures))
    batches = [[b"crash", b"first"], [b"second", b"crash"], [b"first"]]
    with_digests = [(batch, [hashlib.sha256(data).digest() for data in batch]) for batch in batches]
    found = list(inspect_all(with_digests, Inspector({"max_pixels": 1_000_000, "min_side": 1}, max_seconds=20), HERE))
    other = "undecodable"
    assert [[each.reason for each in batch] for batch in found] == [[reason, other], [other, reason], [other]]
    assert looked == [b"crash", b"first", b"second"]


def test_a_picture_whose_decoder_crashes_is_rejected_and_tried_again_by_the_next_run(monkeypatch):
    monkeypatch.setattr(inspection, "LOOK", "tests.pictures.hazards:open_or_die")
    kept, reasons, _ = curate({"bad.jpg": b"crash", "slow.jpg": b"hang"}, SETTINGS.model_copy(update={"max_decode_seconds": 1.0}))
    assert reasons == {"bad.jpg": "crashed", "slow.jpg": "too_slow"}
    assert len(kept) == len(good_rows())


def test_a_missing_package_is_the_reason(monkeypatch):
    from assets.pictures import opening

    monkeypatch.setattr(opening, "_registered", lambda kind: False)
    for data, package in ((b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"), (b"\xff\x0a" + bytes(20), "pillow-jxl-plugin")):
        with pytest.raises(BadPicture) as caught:
            opening.open_picture(data, 100)
        assert caught.value.reason == "unsupported"
        assert f"`.venv/bin/pip install {package}`" in caught.value.detail
