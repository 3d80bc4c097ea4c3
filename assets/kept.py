"""What was computed of one picture or text, kept on disk by its content and found again wherever it turns up.

Files `.cache/kept/<what>-<key>.sqlite`: the key is a hash of the code and the settings, which the caller gives; inside, each value stands
under its content's digest. The files used last stay, up to BYTES_KEPT together; the newest stays whatever its size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assets import artifacts

logger = logging.getLogger(__name__)

FOLDER = artifacts.WORK / "kept"
BYTES_KEPT = 4 << 30
ASKED_AT_ONCE = 500  # digests in one query; SQLite takes 999 or more
WAIT_SECONDS = 60.0  # for another process that writes
COPIED_AT_ONCE = 4096  # rows


class Kept:
    """The values of one file by digest. Processes of one machine may share it: its journal (WAL) needs their common memory."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self.file = file
        self._connection = connection

    def get(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """Those that are kept."""
        return dict(self._select("digest, value", digests))

    def missing(self, digests: Iterable[bytes]) -> set[bytes]:
        wanted = set(digests)
        return wanted - {digest for (digest,) in self._select("digest", wanted)}

    def _select(self, columns: str, digests: Iterable[bytes]) -> Iterator[tuple[Any, ...]]:
        wanted = list(set(digests))
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            some = wanted[start : start + ASKED_AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from self._connection.execute(f"SELECT {columns} FROM kept WHERE digest IN ({marks})", some)

    def replace(self, values: Mapping[bytes, bytes]) -> None:
        """Put them in place of what is kept under the same digests: all of them or, after a kill, none."""
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", values.items())

    def add(self, values: Mapping[bytes, bytes]) -> None:
        """All of them or, after a kill, none."""
        with self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?)", values.items())


@contextlib.contextmanager
def opened(what: str, determined_by: Mapping[str, Any], code: Iterable[Path]) -> Iterator[Kept]:
    """What is kept of `what` with these settings and this code."""
    hashes = [artifacts.sha256_of(path) for path in code]
    key = hashlib.sha256(json.dumps([dict(determined_by), hashes], sort_keys=True).encode()).hexdigest()[:32]
    file = FOLDER / f"{what}-{key}.sqlite"
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = _connected(file)
    try:
        os.utime(file)
        yield Kept(file, connection)
    finally:
        connection.close()
        _forget_all_but_the_last_used()


def _connected(file: Path) -> sqlite3.Connection:
    try:
        return _prepared(file)
    except sqlite3.OperationalError:  # such as a lock that another process holds: its file is whole
        raise
    except sqlite3.DatabaseError as error:
        logger.warning("%s is broken (%s): what it kept is computed again", file, error)
        _remove(file)
        return _prepared(file)


def _prepared(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=WAIT_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode = WAL")  # else each `add` waits for the disk, longer than small pictures take to decode
        connection.execute("PRAGMA synchronous = NORMAL")  # after a power cut the last ones may be lost, and are computed again
        with connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (digest BLOB PRIMARY KEY, value BLOB NOT NULL)")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def kept_rows(
    what: str,
    determined_by: Mapping[str, Any],
    code: Iterable[Path],
    digests: Sequence[bytes],
    width: int,
    compute: Callable[[Sequence[int]], Iterator[np.ndarray]],
) -> np.ndarray:
    """float32 [len(digests), width], mapped from disk: a row for each digest.

    compute(rows): the values of these rows, in their order, a chunk at a time; each chunk is kept at once, so that a killed run goes on
    after it. It is asked for what is not kept, once for each digest.
    """
    kind = str(determined_by["device"]).partition(":")[0]  # whichever cuda device it was
    with opened(what, {**determined_by, "device": kind}, code) as store:
        absent, new = store.missing(digests), []
        for row, digest in enumerate(digests):
            if digest in absent:
                absent.remove(digest)
                new.append(row)
        if len(new) < len(digests):
            logger.info("%s: %d of %d embeddings of the locked tower from %s", what, len(digests) - len(new), len(digests), store.file)
        done = 0
        for chunk in compute(new) if new else ():
            values = np.ascontiguousarray(chunk, np.float32)
            store.add({digests[row]: value.tobytes() for row, value in zip(new[done : done + len(values)], values, strict=True)})
            done += len(values)
        assert done == len(new), (done, len(new))
        return _mapped(store, digests, width)


def _mapped(store: Kept, digests: Sequence[bytes], width: int) -> np.ndarray:
    """On disk in a file without a name, which goes with the array."""
    if not digests:
        return np.zeros((0, width), np.float32)
    with tempfile.TemporaryFile(dir=FOLDER) as file:
        file.truncate(len(digests) * width * 4)
        rows = np.memmap(file, np.float32, mode="r+", shape=(len(digests), width))
    for start in range(0, len(digests), COPIED_AT_ONCE):
        some = digests[start : start + COPIED_AT_ONCE]
        values = store.get(some)
        rows[start : start + len(some)] = np.frombuffer(b"".join(values[digest] for digest in some), np.float32).reshape(-1, width)
    return rows


def _forget_all_but_the_last_used() -> None:
    def used(file: Path) -> tuple[int, int]:
        try:
            return file.stat().st_mtime_ns, file.stat().st_size
        except FileNotFoundError:  # another stage, which runs beside, has removed it
            return 0, 0

    found = sorted(((*used(file), file) for file in FOLDER.glob("*.sqlite")), reverse=True)
    room = BYTES_KEPT
    for number, (_, size, file) in enumerate(found):
        room -= size
        if room < 0 and number:
            _remove(file)


def _remove(file: Path) -> None:
    for each in (file, *(file.with_name(file.name + beside) for beside in ("-wal", "-shm"))):
        each.unlink(missing_ok=True)
