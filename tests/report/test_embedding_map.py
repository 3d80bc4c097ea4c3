"""Which images are on the map, and where."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from assets.report.embedding_map import EXTENT, draw_classes, layout, sheet


def test_whole_classes_are_drawn_up_to_a_bound():
    labels = np.array(["a"] * 3 + ["b"] * 4 + ["c"] * 2 + ["d"] * 9, dtype=object)
    for seed in range(10):
        rows = draw_classes(labels, 7, seed)
        assert len(rows) <= 7
        assert all(np.count_nonzero(labels[rows] == label) == np.count_nonzero(labels == label) for label in set(labels[rows]))
        assert draw_classes(labels, 7, seed) == rows
    assert draw_classes(labels, 18, 0) == list(range(18))


def test_where_no_class_fits_a_share_of_each_is_drawn():
    labels = np.array(["a"] * 9 + ["b"] * 12 + ["c"] * 30, dtype=object)
    found = {tuple(draw_classes(labels, 6, seed)) for seed in range(5)}
    assert len(found) > 1
    for rows in found:
        assert [np.count_nonzero(labels[list(rows)] == label) for label in "abc"] == [2, 2, 2]
        assert list(rows) == sorted(set(rows))
    assert draw_classes(labels, 6, 0) == draw_classes(labels, 6, 0)
    assert len(set(labels[draw_classes(labels, 2, 0)])) == 2  # one each of as many classes as there is room for
    assert len(draw_classes(labels[:3], 2, 0)) == 2
    assert draw_classes(labels, 0, 0) == []


def test_what_is_near_in_the_embedding_is_near_on_the_map_and_the_same_every_time():
    generator = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 12)
    vectors = 5 * np.eye(3)[classes] @ generator.normal(size=(3, 16)) + 0.1 * generator.normal(size=(36, 16))
    places = layout(vectors, 0, None)
    assert (places.shape, places.min(), places.max()) == ((36, 2), 0, EXTENT)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    same = classes[:, None] == classes
    assert distances[same].max() < distances[~same].min()
    np.testing.assert_array_equal(layout(vectors, 0, None), places)


def test_a_layout_that_starts_from_another_stays_near_it():
    generator = np.random.default_rng(1)
    vectors = np.repeat(generator.normal(size=(12, 16)), 6, axis=0) + 0.3 * generator.normal(size=(72, 16))
    places = layout(vectors, 0, None)
    for start in (places, EXTENT - places):  # mirrored
        assert np.corrcoef(layout(vectors, 0, start).ravel(), start.ravel())[0, 1] > 0.4  # without turning it back, −0.97


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_few_images_have_places_too(count):
    places = layout(np.eye(8)[:count], 0, None)
    assert places.shape == (count, 2)
    assert len({tuple(place) for place in places}) == count


def test_the_sheet_has_the_pictures_in_order_on_white():
    def picture(color: str, size: tuple[int, int]) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", size, color).save(buffer, "PNG")
        return buffer.getvalue()

    found = np.asarray(sheet([picture("red", (32, 32)), picture("blue", (32, 16)), picture("lime", (8, 8))], 16))
    assert found.shape == (32, 32, 3)
    assert found[8, 8].tolist() == [255, 0, 0]
    assert (found[8, 24].tolist(), found[1, 24].tolist()) == ([0, 0, 255], [255, 255, 255])
    assert (found[24, 8].tolist(), found[24, 24].tolist()) == ([0, 255, 0], [255, 255, 255])
