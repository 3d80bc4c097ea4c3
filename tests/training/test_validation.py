"""Validation by hand: recall and mAP of four images on a circle, and None where there is nothing to measure."""

import numpy as np
import pytest

from assets import artifacts
from assets.training.validation import image_to_image, read_validation_set, text_to_image
from tests.training.tables import write_colors


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_set_is_the_validation_split_with_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colors({"red": (220, 30, 30), "blue": (40, 60, 220)})
    held_out = read_validation_set(artifacts.CURATED_IMAGES)
    assert held_out.labels.tolist() == ["blue", "blue", "red", "red"]
    assert held_out.names == ["blue square", "red square"]
    assert held_out.relevant.tolist() == [[True, True, False, False], [False, False, True, True]]
    assert len(held_out.pictures) == 4


def test_image_to_image_is_the_map_of_each_image_among_the_others():
    images, labels = on_circle(0, 10, 15, 90), np.array(["a", "a", "b", "b"], object)
    # 0°: 10° first, 1. 10°: 15° before 0°, 1/2. 15°: 90° is last of three, 1/3. 90°: 15° first, 1
    assert image_to_image(images, labels) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1) / 4)
    assert image_to_image(images, np.array(list("abcd"), object)) is None


def test_text_to_image_is_the_share_of_names_with_an_image_of_theirs_among_the_first_five():
    images, texts = on_circle(*range(0, 70, 10)), on_circle(0, 0)
    relevant = np.zeros((2, 7), bool)
    relevant[0, [5, 6]] = True  # the sixth and the seventh
    relevant[1, [4, 6]] = True
    assert text_to_image(texts, images, relevant) == pytest.approx(1 / 2)
    assert text_to_image(texts[:0], images[:0], np.zeros((0, 0), bool)) is None
