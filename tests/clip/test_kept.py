"""What is kept on disk: whole files alone, those used longest ago removed when there is no room."""

import os

import numpy as np
import pytest

from assets.clip import kept as module
from assets.clip.kept import kept


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def computed():
    return []


def rows(computed, number, device="cpu"):
    """100 rows of 64 numbers, kept as `number`."""

    def chunks():
        computed.append(number)
        yield np.full((60, 64), number, np.float32)
        yield np.full((40, 64), number, np.float32)

    return kept("images", {"pictures": number, "device": device}, [], (100, 64), chunks)


def test_it_is_computed_once_on_every_device_of_a_kind(computed):
    first = rows(computed, 1, "cuda:0")
    np.testing.assert_array_equal(first, np.full((100, 64), 1))
    np.testing.assert_array_equal(rows(computed, 1, "cuda:1"), first)
    assert computed == [1]
    rows(computed, 1, "cpu")
    assert computed == [1, 1]


def test_a_file_whose_chunks_end_early_is_not_kept():
    with pytest.raises(AssertionError):
        kept("images", {"device": "cpu"}, [], (100, 64), lambda: iter([np.zeros((60, 64), np.float32)]))
    assert not list(module.FOLDER.iterdir())


def test_the_files_used_longest_ago_are_removed_when_there_is_no_room(computed, monkeypatch):
    rows(computed, 0)
    size = next(module.FOLDER.iterdir()).stat().st_size
    monkeypatch.setattr(module, "BYTES_KEPT", 3 * size + size // 2)  # three files
    for number in (1, 2):
        for file in module.FOLDER.iterdir():
            os.utime(file, ns=(file.stat().st_mtime_ns - 10**9,) * 2)
        rows(computed, number)
    rows(computed, 0)  # used again
    first = set(module.FOLDER.iterdir())
    rows(computed, 3)
    left = set(module.FOLDER.iterdir())
    assert len(left) == 3
    assert len(first - left) == 1
    computed.clear()
    rows(computed, 0)
    assert not computed
    rows(computed, 1)
    assert computed == [1]


def test_one_file_that_is_larger_than_the_room_stays(computed, monkeypatch):
    monkeypatch.setattr(module, "BYTES_KEPT", 1)
    rows(computed, 0)
    rows(computed, 0)
    assert computed == [0]
    rows(computed, 1)
    assert len(list(module.FOLDER.iterdir())) == 1


def test_what_a_killed_run_had_begun_is_removed_after_a_day(computed):
    rows(computed, 0)
    old, new = module.FOLDER / ".images-old.npy.1.tmp", module.FOLDER / ".images-new.npy.2.tmp"
    for broken in (old, new):
        broken.write_bytes(b"")
    os.utime(old, ns=(0, 0))
    rows(computed, 0)
    assert not old.exists()
    assert new.exists()
