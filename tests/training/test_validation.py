"""Validation by hand: mAP of four images on a circle, which pictures search, and None where there is nothing to measure."""

import numpy as np
import pytest

from assets import artifacts
from assets.pictures.split import Split
from assets.training.validation import ValidationSet, measures, precisions, read_validation_set
from tests.training.tables import curated_row, png, write_colors, write_curated

PIXELS = png(np.zeros((4, 4, 3)))


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def held_out(labels, searching=None, tmp_path=artifacts.CURATED_IMAGES):
    labels = np.array(list(labels), object)
    searching = np.arange(len(labels)) if searching is None else np.array(searching)
    return ValidationSet(Split(tmp_path, "validation"), labels, searching, class_names=labels, unseen=frozenset())


def test_pictures_of_training_classes_search_where_no_class_is_unseen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_colors({"red": (220, 30, 30), "blue": (40, 60, 220)})
    found = read_validation_set(artifacts.CURATED_IMAGES)
    assert found.labels.tolist() == ["blue", "blue", "red", "red"]
    assert found.searching.tolist() == [0, 1, 2, 3]
    assert found.names == ["blue square", "red square"]
    assert found.class_names.tolist() == ["blue square"] * 2 + ["red square"] * 2
    assert len(found.pictures) == 4
    assert str(found) == "4 of 4 validation pictures search, of 2 classes; training sees pictures of 2 of them"


@pytest.mark.parametrize(
    ("unseen", "told"),
    [
        (10, "22 of 24 validation pictures search, of 12 classes; training sees pictures of none of them"),
        (9, "22 of 22 validation pictures search, of 12 classes; training sees pictures of 1 of them"),
    ],
)
def test_unseen_classes_alone_search_where_there_are_ten(tmp_path, monkeypatch, unseen, told):
    """Held-out pictures of training classes chose the epoch that knows these classes best, and classes like those of the test suffered."""
    monkeypatch.chdir(tmp_path)
    rows = [curated_row("seen", number, PIXELS, "validation" if number < 2 else "train") for number in range(4)]
    rows += [curated_row(f"single{number}", 0, PIXELS, "validation") for number in range(2)]  # nothing to find for its picture
    rows += [curated_row(f"new{number}", view, PIXELS, "validation") for number in range(unseen) for view in range(2)]
    write_curated(rows)
    found = read_validation_set(artifacts.CURATED_IMAGES)
    assert str(found) == told  # the single ones search by their names
    assert ("seen square" in found.names) == (unseen < 10)
    assert len(found.labels) == 2 * unseen + 4, "all pictures are there to be found"


def test_image_to_image_is_the_map_of_each_image_among_the_others():
    images, texts = on_circle(0, 10, 15, 90), on_circle(0, 90)
    # 0°: 10° first, 1. 10°: 15° before 0°, 1/2. 15°: 90° is last of three, 1/3. 90°: 15° first, 1
    found = precisions(held_out("aabb"), images, texts)
    assert found["image_to_image"] == pytest.approx([(1 + 1 / 2) / 2, (1 / 3 + 1) / 2])
    assert measures(held_out("abcd"), images, on_circle(0, 10, 15, 90))["image_to_image"] is None


def test_text_to_image_is_the_map_of_each_name_among_all_pictures_and_search_the_mean_of_both():
    images, texts = on_circle(0, 10, 15, 90), on_circle(0, 0)
    # a: ranks 1 and 2. b: ranks 3 and 4
    found = measures(held_out("aabb"), images, texts)
    assert found["text_to_image"] == pytest.approx((1 + (1 / 3 + 2 / 4) / 2) / 2)
    assert found["search"] == pytest.approx((found["image_to_image"] + found["text_to_image"]) / 2)


def test_six_names_have_room_at_the_top():
    """Recall@5 of six names was 1.0 after the first epoch, whatever came after."""
    images = on_circle(*range(0, 36, 3))
    better, worse = on_circle(*[6 * name + 1.5 for name in range(6)]), on_circle(*[6 * name + 8 for name in range(6)])
    validation = held_out("aabbccddeeff")
    assert measures(validation, images, worse)["text_to_image"] < measures(validation, images, better)["text_to_image"] == 1


def test_classes_weigh_the_same():
    images = on_circle(0, 1, 2, 3, 40, 90)
    found = precisions(held_out("aaaabb"), images, on_circle(0, 60))
    assert found["image_to_image"] == pytest.approx([1, (1 / 5 + 1) / 2])
    assert measures(held_out("aaaabb"), images, on_circle(0, 60))["image_to_image"] == pytest.approx(0.8)


def test_pictures_that_do_not_search_are_found_and_stand_in_the_way():
    images = on_circle(0, 1, 2, 3)
    alone = precisions(held_out("abab", searching=[0, 2]), images, on_circle(0))
    assert alone["image_to_image"] == pytest.approx([(1 / 2 + 1 / 3) / 2])
    assert alone["text_to_image"] == pytest.approx([(1 + 2 / 3) / 2])


def test_nothing_to_validate_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_curated([curated_row("a", number, PIXELS, "train") for number in range(2)])
    found = read_validation_set(artifacts.CURATED_IMAGES)
    empty = np.zeros((0, 2), np.float32)
    assert measures(found, empty, empty) == {"image_to_image": None, "text_to_image": None, "search": None}
    assert found.why_no_choice(1) == "there are no validation pictures"


@pytest.mark.parametrize(("pictures", "told"), [(6, "6 validation pictures are too few"), (29, "at least 30"), (30, None)])
def test_a_handful_of_pictures_chooses_nothing(pictures, told):
    found = held_out(["a", "b"] * 15 if pictures == 30 else ["a"] * pictures).why_no_choice(30)
    assert (told in found) if told else found is None
