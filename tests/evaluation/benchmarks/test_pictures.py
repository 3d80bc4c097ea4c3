"""What decides that a benchmark's pictures are the same ones: stale embeddings of other pixels would be measured unnoticed."""

import os

import numpy as np
import pytest
from PIL import Image

from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Border, Boxes, Pictures

NAMES = ["a.png", "b.png"]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(NAMES):
        pixels = np.zeros((8, 10, 3), np.uint8)
        pixels[2:6, 3:7] = 100 + number
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def test_the_same_files_are_the_same_pictures(folder):
    assert Pictures(folder, NAMES).digests() == Pictures(folder, list(NAMES)).digests()
    assert Pictures(folder, NAMES, Border(2)).digests() == Pictures(folder, NAMES, Border(2)).digests()


def test_whatever_changes_the_pixels_or_their_order_is_seen(folder):
    first = Pictures(folder, NAMES).digests()
    others = [
        Pictures(folder, NAMES[::-1]),
        Pictures(folder, NAMES[:1]),
        Pictures(folder, NAMES, Border(1)),
        Pictures(folder, NAMES, Border(2)),
        Pictures(folder, NAMES, Boxes(((0, 0, 4, 4), (0, 0, 4, 4)))),
        Pictures(folder, NAMES, Boxes(((0, 0, 4, 4), (0, 0, 4, 5)))),
    ]
    assert others[0].digests() == first[::-1]
    assert others[1].digests() == first[:1]
    seen = {*first, *(each for other in others[2:] for each in other.digests())}
    assert len(seen) == 2 + 2 + 2 + 3  # both pictures whole, by two borders, by boxes of which one is the same
    changed = (folder / "a.png").stat()
    os.utime(folder / "a.png", ns=(changed.st_atime_ns, changed.st_mtime_ns + 1))
    assert Pictures(folder, NAMES).digests() != first


def test_items_are_rows_and_open_gives_the_part_that_counts(folder):
    whole = Pictures(folder, NAMES)
    assert (len(whole), list(whole.items())) == (2, [0, 1])
    assert [whole.open(row).size for row in whole.items()] == [(10, 8)] * 2
    inner = Pictures(folder, NAMES, Border(2)).open(0)
    assert inner.size == (6, 4)
    # the second picture's own box, whose sides Pillow rounds
    part = Pictures(folder, NAMES, Boxes(((0, 0, 1, 1), (3.2, 1.9, 6.8, 6.1)))).open(1)
    assert part.size == (4, 4)
    assert (np.asarray(part) == 101).all()


def test_a_damaged_file_is_named(folder):
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"b\.png: .*Unpack the benchmark again"):
        Pictures(folder, NAMES).open(1)
