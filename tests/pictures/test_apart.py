"""A decoder that crashes or hangs loses its picture alone: real processes, a real segmentation fault."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest
from PIL import Image

from assets.pictures.apart import AT_ONCE, Apart, opened
from assets.pictures.decoding import BadPicture
from tests.pictures.hostile import drawing, encode, quarters

HOW = {"max_pixels": 1_000_000, "min_side": 8}
FUNCTION = "tests.pictures.hazards:open_or_die"


def good(count: int) -> list[bytes]:
    return [encode(drawing(quarters(number)), "PNG") for number in range(count)]


def test_a_crash_and_a_hang_lose_one_picture_each():
    """A segmentation fault in a decoder ended the whole stage, and a hang kept it forever."""
    pictures = good(3 * AT_ONCE)
    pictures[1], pictures[2], pictures[AT_ONCE + 3], pictures[-1] = b"crash", b"crash", b"hang", b"exit"
    begun = time.monotonic()
    with Apart(FUNCTION, HOW, max_seconds=1) as apart:
        found = list(apart.map(pictures))
        bad = {number: each for number, each in enumerate(found) if isinstance(each, BadPicture)}
        assert {number: each.reason for number, each in bad.items()} == {
            1: "crashed",
            2: "crashed",
            AT_ONCE + 3: "too_slow",
            len(pictures) - 1: "crashed",
        }
        assert bad[1].detail == f"its decoder crashed ({signal.SIGSEGV.name})"
        assert bad[AT_ONCE + 3].detail == "its decoder was stopped after 1 seconds"
        assert len(set(map(bytes, filter(lambda each: isinstance(each, bytes), found)))) == len(pictures) - 4, "each has its own answer"
        assert isinstance(apart.one(pictures[0]), bytes)
    assert time.monotonic() - begun < 30


def test_a_defect_of_ours_is_no_bad_picture():
    with Apart(FUNCTION, HOW, max_seconds=5) as apart, pytest.raises(RuntimeError, match="ZeroDivisionError: of our own"):
        list(apart.map([*good(2), b"defect"]))


def test_processes_that_do_not_start_are_no_bad_picture(capfd):
    with Apart("tests.pictures.no_such_module:f", {}) as apart, pytest.raises(RuntimeError, match="did not start"):
        apart.one(b"")
    assert "no_such_module" in capfd.readouterr().err


def test_a_picture_comes_back_as_it_is_and_a_bad_one_raises():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    assert opened(encode(picture, "PNG"), 10**6).tobytes() == picture.tobytes()
    with pytest.raises(BadPicture, match="too_large"):
        opened(encode(picture, "PNG"), 10)
