"""What is kept on disk by content: nothing is computed twice, whole chunks survive a kill, what was used longest ago makes room."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest

from assets import kept as module
from assets.kept import kept_rows, opened


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def computed():
    return []


def digest(name):
    return hashlib.sha256(str(name).encode()).digest()


def rows(computed, names, device="cpu", **how):
    """A row of 64 numbers for each of `names`, which are numbers; computed in chunks of three."""

    def compute(new):
        computed.extend(names[row] for row in new)
        for start in range(0, len(new), 3):
            yield np.array([[names[row]] * 64 for row in new[start : start + 3]], np.float32)

    return kept_rows("images", {"device": device, **how}, [], [digest(name) for name in names], 64, compute)


def test_only_what_is_new_is_computed_whatever_stands_beside_it(computed):
    """One new picture had everything embedded again: the key held the whole table's hash."""
    rows(computed, [5, 6, 7, 8])
    computed.clear()
    found = rows(computed, [9, 8, 4, 7, 4, 5, 9])
    assert computed == [9, 4]
    np.testing.assert_array_equal(found, np.array([[name] * 64 for name in (9, 8, 4, 7, 4, 5, 9)]))
    computed.clear()
    assert rows(computed, []).shape == (0, 64)
    assert not computed


def test_each_device_kind_and_setting_has_its_own(computed):
    rows(computed, [1], "cuda:0")
    rows(computed, [1], "cuda:1")
    assert computed == [1]
    rows(computed, [1], "cpu")
    rows(computed, [1], "cpu", precision="bf16")
    assert computed == [1, 1, 1]


def test_changed_code_finds_nothing(tmp_path):
    code = tmp_path / "code.py"
    for text, found in (("a", False), ("a", True), ("b", False)):
        code.write_text(text)
        with opened("images", {}, [code]) as store:
            assert bool(store.get([digest(0)])) == found
            store.add({digest(0): b"value"})


def test_rows_that_do_not_come_are_an_error():
    with pytest.raises(AssertionError):
        kept_rows("images", {"device": "cpu"}, [], [digest(0), digest(1)], 2, lambda new: iter([np.zeros((1, 2), np.float32)]))


def test_nothing_of_the_result_is_left_on_disk_beside_the_store(computed):
    held = rows(computed, list(range(100)))
    assert [each.suffix for each in module.FOLDER.iterdir()] == [".sqlite"]
    held[0] = 1  # in memory alone
    np.testing.assert_array_equal(rows(computed, [0])[0], np.zeros(64))


SLOW = """
import hashlib, sys, time
import numpy as np
from assets.kept import kept_rows

def compute(new):
    for row in new:
        print(row, flush=True)
        time.sleep(0.02)
        yield np.full((1, 4), row, np.float32)

digests = [hashlib.sha256(str(row).encode()).digest() for row in range(60)]
rows = kept_rows("slow", {"device": "cpu"}, [], digests, 4, compute)
assert (rows == np.arange(60)[:, None]).all()
"""


def test_a_killed_run_goes_on_where_it_was(checkout):
    """Embeddings of an hour were lost with the last of them: the file appeared whole or not at all."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    starts = []
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, env=environment) as run:
            assert run.stdout is not None
            first = run.stdout.readline()
            starts.append(int(first) if first else 60)
            time.sleep(0.12)
            run.send_signal(signal.SIGKILL)
            run.stdout.read()
        if not first:
            break
    assert starts[-1] == 60 and len(starts) > 3
    assert all(now > before for before, now in pairwise(starts)), starts


def test_two_processes_share_a_file(checkout):
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    runs = [subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.DEVNULL, env=environment) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]


def test_a_broken_file_is_made_anew(computed, caplog):
    rows(computed, [1, 2])
    (file,) = module.FOLDER.iterdir()
    file.write_bytes(b"no database" * 100)
    rows(computed, [1, 2])
    assert computed == [1, 2, 1, 2]
    assert "is broken" in caplog.text


def test_a_file_that_another_process_holds_is_waited_for_and_stays(computed, monkeypatch):
    """A lock was taken for a broken file, which went with all that it kept."""
    rows(computed, [1, 2])
    (file,) = module.FOLDER.iterdir()
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        rows(computed, [1, 2])  # reading waits for nobody
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            rows(computed, [1, 2, 3])
    rows(computed, [1, 2])
    assert computed == [1, 2, 3]


def test_the_files_used_longest_ago_are_removed_when_there_is_no_room(computed, monkeypatch):
    def use(number):
        for file in module.FOLDER.iterdir():
            os.utime(file, ns=(file.stat().st_mtime_ns - 10**9,) * 2)
        computed.clear()
        rows(computed, list(range(100)), number=number)
        return bool(computed)

    module.FOLDER.mkdir(parents=True)
    assert use(0)
    size = next(module.FOLDER.iterdir()).stat().st_size
    monkeypatch.setattr(module, "BYTES_KEPT", 3 * size + size // 2)  # three files
    assert [use(number) for number in (1, 2, 0)] == [True, True, False]
    first = min(module.FOLDER.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    beside = first.with_name(first.name + "-wal")  # as a killed run leaves it
    beside.write_bytes(b"")
    assert use(3)
    assert not first.exists()
    assert not beside.exists(), "a journal of a file that is gone would be read into the next of its name"
    assert len(list(module.FOLDER.iterdir())) == 3
    assert [use(number) for number in (0, 1)] == [False, True]


def test_one_file_that_is_larger_than_the_room_stays(computed, monkeypatch):
    monkeypatch.setattr(module, "BYTES_KEPT", 1)
    rows(computed, [0])
    rows(computed, [0])
    assert computed == [0]
