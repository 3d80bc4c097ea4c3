"""Copies are recognised by their pixels; what only looks alike from afar is not."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw

from assets.curated_images import nearest as module
from assets.curated_images.nearest import near_identical, nearest
from assets.curated_images.thumbnails import VALUES, thumbnail


def stack(*pictures: Image.Image) -> np.ndarray:
    return np.stack([np.frombuffer(thumbnail(each), np.uint8) for each in pictures])


def icon(kind: int, ground: str = "white") -> Image.Image:
    """A thin line drawing, of which hardly a pixel in fifty is black."""
    picture = Image.new("RGB", (96, 96), ground)
    pen = ImageDraw.Draw(picture)
    box = [20, 20, 76, 76]
    drawings = (
        lambda: pen.ellipse(box, outline="black", width=2),
        lambda: pen.rectangle(box, outline="black", width=2),
        lambda: pen.line([20, 76, 48, 20, 76, 76, 20, 76], fill="black", width=2),
        lambda: pen.line([20, 20, 76, 76], fill="black", width=2),
        lambda: pen.line([20, 48, 76, 48], fill="black", width=2),
        lambda: pen.ellipse([24, 24, 80, 80], outline="black", width=2),
    )
    drawings[kind]()
    return picture


@pytest.mark.parametrize("ground", ["white", "red", "navy"])
def test_thin_line_icons_that_differ_are_not_copies_and_an_icon_saved_anew_is(ground):
    icons = [icon(kind, ground) for kind in range(6)]
    saved = io.BytesIO()
    icons[0].resize((64, 64), Image.Resampling.LANCZOS).save(saved, "JPEG", quality=95, subsampling=0)
    queries = stack(*icons[1:], Image.open(saved).convert("RGB"))
    assert module._differences(queries[:-1], np.repeat(stack(icons[0]), 5, axis=0)).min() < 0.08, "alike by their differences alone"
    assert near_identical(queries, stack(icons[0]), 0.1) == {5: 0}


def test_against_every_pair_written_out(monkeypatch):
    monkeypatch.setattr(module, "GALLERY_BLOCK", 7)
    monkeypatch.setattr(module, "QUERY_BLOCK", 4)
    generator = np.random.default_rng(0)
    gallery = generator.integers(0, 256, (30, VALUES), dtype=np.uint8)
    noise = generator.normal(0, 1, (18, VALUES)) * generator.choice([1, 3, 9, 60], (18, 1))
    queries = (gallery[generator.integers(0, 30, 18)] + noise).clip(0, 255).astype(np.uint8)

    def centred(thumbnails: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [thumbnails[:, colour::3] - thumbnails[:, colour::3].mean(axis=1, keepdims=True) for colour in range(3)], axis=1
        )

    pairs = [[(one, other) for other in centred(gallery)] for one in centred(queries)]
    correlations = np.array([[one @ other / np.linalg.norm(one) / np.linalg.norm(other) for one, other in row] for row in pairs])
    differences = np.array([[np.abs(query.astype(float) - row).mean() / 255 for row in gallery] for query in queries])
    expected = {}
    for query in range(18):
        near = [row for row in range(30) if correlations[query, row] > 0.98 and differences[query, row] < 0.02]
        if near:
            expected[query] = max(near, key=lambda row: correlations[query, row])
    assert 3 < len(expected) < 15
    assert near_identical(queries, gallery, 0.02) == expected
    rows, correlation, difference = nearest(queries, gallery)
    assert rows.tolist() == correlations.argmax(axis=1).tolist()
    np.testing.assert_allclose(correlation, correlations.max(axis=1), atol=1e-4)
    np.testing.assert_allclose(difference, differences[np.arange(18), rows], atol=1e-4)
    assert (correlation.dtype, difference.dtype) == (np.float32, np.float32)


def test_many_pictures_that_are_all_alike_take_little_memory():
    """Every frame of a film is a copy of every other: 64 million pairs for 8,000 frames on either side, each of some kilobytes."""
    generator = np.random.default_rng(0)
    one = generator.integers(0, 256, VALUES)
    frames = (one + generator.integers(-2, 3, (600, VALUES))).clip(0, 255).astype(np.uint8)
    tracemalloc.start()
    found = near_identical(frames[:300], frames[300:], 0.02)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(found) == list(range(300))
    assert peak < 30 << 20, f"{peak >> 20} MiB"


def test_a_picture_of_one_colour_has_no_correlation():
    flat, other = Image.new("RGB", (20, 20), "red"), icon(0)
    assert near_identical(stack(flat, other), stack(flat), 0.02) == {}
    assert nearest(stack(flat), stack(other))[1].tolist() == [0]


def test_without_a_picture_on_one_side():
    some, none = stack(icon(0)), np.zeros((0, VALUES), np.uint8)
    assert near_identical(none, some, 0.02) == near_identical(some, none, 0.02) == {}


def test_what_an_earlier_run_compared_is_not_compared_again_and_changes_nothing(tmp_path, monkeypatch):
    """All pairs were compared anew for every new picture: half of curation's time."""
    monkeypatch.chdir(tmp_path)
    pairs = []
    compare = module._compare

    def counting(queries, asked, gallery, searched, *more):
        pairs.append(len(asked) * len(searched))
        return compare(queries, asked, gallery, searched, *more)

    monkeypatch.setattr(module, "_compare", counting)
    generator = np.random.default_rng(0)
    drawings = generator.integers(0, 256, (12, VALUES))
    some = (drawings[generator.integers(0, 12, 120)] + generator.normal(0, 4, (120, VALUES))).clip(0, 255).astype(np.uint8)
    some[5] = some[70] = 17  # of one colour, on both sides
    some[80] = some[90]  # twice the same
    every = np.arange(120)
    # queries, gallery: as at first; again; more of both; some gone; sides changed
    states = [
        (every[:40], every[60:100]),
        (every[:40], every[60:100]),
        (every[:45], every[58:104]),
        (every[3:42], np.delete(every[58:104], [2, 30, 31])),
        (every[50:110], every[:50]),
        (every[:40], every[60:100]),
    ]
    expensive = []
    for queries, gallery in states:
        fresh = [near_identical(some[queries], some[gallery], 0.02), nearest(some[queries], some[gallery])]
        pairs.clear()
        kept = [near_identical(some[queries], some[gallery], 0.02, keep="copies"), nearest(some[queries], some[gallery], keep="nearest")]
        expensive.append(sum(pairs))
        assert kept[0] == fresh[0]
        for one, other in zip(kept[1], fresh[1], strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(near_identical(some[:40], some[60:100], 0.02)) > 3
    assert expensive[0] > 3000
    assert expensive[1] == 0
    assert 0 < expensive[2] < expensive[0] / 3
