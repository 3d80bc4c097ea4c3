"""Flickr30k and MS-COCO: seven images, eight captions, of which one image has two."""

from __future__ import annotations

import pytest

from assets.errors import UserError
from assets.evaluation.benchmarks.captions import measure_captions, read_coco, read_flickr30k

SETS = [
    ("flickr30k", read_flickr30k, "dataset_flickr30k.json", "flickr30k-images/90.jpg"),
    ("coco", read_coco, "dataset_coco.json", "val2014/90.jpg"),
]


# Images at 0, 30, …, 150 and 179°, captions where they are, but for 100° (of the image at 0°) and 45° (of the image at 179°).
# Text→image: these two find theirs last, at rank 7, the other six at once.
# Image→text: 179° finds 150, 120, 100, 90, 60 and then its own 45, at rank 6; all others find their own at once.
@pytest.mark.parametrize(("name", "read"), [each[:2] for each in SETS])
def test_values_by_hand(replica, tools, name, read):
    angles = {f"{angle}°": angle for angle in (0, 100, 30, 60, 90, 120, 150, 45)}
    found = measure_captions(read(replica(name)), tools(angles))
    assert found == {
        "text_to_image_recall_at_1": 75,
        "text_to_image_recall_at_5": 75,
        "text_to_image_recall_at_10": 100,
        "image_to_text_recall_at_1": round(600 / 7, 4),
        "image_to_text_recall_at_5": round(600 / 7, 4),
        "image_to_text_recall_at_10": 100,
    }


@pytest.mark.parametrize(("read", "name", "gone"), [(read, name, gone) for name, read, split, image in SETS for gone in (split, image)])
def test_the_first_missing_file_is_named(replica, read, name, gone):
    root = replica(name)
    (root / gone).unlink()
    with pytest.raises(UserError) as raised:
        read(root)
    assert str(raised.value) == f"{root / gone} is missing."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not Karpathy's split: JSONDecodeError"),
        ('{"annotations": []}', "not Karpathy's split: KeyError 'images'"),
        ('{"images": [{"filename": "1.jpg", "split": "val", "sentences": []}]}', "no image of split test"),
        ('{"images": [{"filename": "1.jpg", "split": "test", "sentences": []}]}', "one without a sentence"),
    ],
)
def test_a_split_that_is_another(replica, text, told):
    root = replica("coco")
    (root / "dataset_coco.json").write_text(text)
    with pytest.raises(UserError, match=told):
        read_coco(root)
