"""What people said of hits, one JSON object a line, so that any program can read it: data/judgements.jsonl.

`time` (UTC), `query` (what was asked: text, less, like, by, where, and the SHA-256 of a picture), `id` of the hit, `right` (true or
false), `version` of the table (a number) and `model`. Of two lines on one query, id and model the later one holds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assets.errors import UserError

MOST_BYTES = 100 * 1024 * 1024
KINDS = {"query": dict, "id": str, "right": bool, "version": int, "model": str}
_lock = threading.Lock()


def append(path: Path, judgement: dict[str, Any]) -> None:
    """UserError where the file is full, or cannot be written."""
    line = (json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **judgement}) + "\n").encode()
    with _lock:
        try:
            if path.exists() and path.stat().st_size + len(line) > MOST_BYTES:
                raise UserError(f"{path} has reached {MOST_BYTES // 2**20} MiB. Move it away; a new one begins.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                if file.tell() and file.seek(-1, 2) >= 0 and file.read(1) != b"\n":  # a killed service left half a line
                    line = b"\n" + line
                file.write(line)
        except OSError as error:
            raise UserError(f"the judgement was not kept: {path} cannot be written ({error.strerror}).") from None


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """(the judgements in the order of the file, how many lines are none: cut off, or written by something else)"""
    found, broken = [], 0
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). It is a file with one JSON object a line.") from None
    for line in lines:
        if not line.strip():
            continue
        try:
            judgement = json.loads(line)
        except (ValueError, RecursionError):
            judgement = None
        if isinstance(judgement, dict) and all(type(judgement.get(name)) is kind for name, kind in KINDS.items()):
            found.append(judgement)
        else:
            broken += 1
    return found, broken


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Those that hold, in the order in which their questions first came."""
    latest: dict[str, dict[str, Any]] = {}
    for judgement in read_lines(path)[0]:
        latest[json.dumps([judgement["query"], judgement["id"], judgement["model"]], sort_keys=True)] = judgement
    yield from latest.values()


def summary(path: Path) -> dict[str, dict[str, int]]:
    """By model, how many hits were called right and wrong."""
    found: dict[str, dict[str, int]] = {}
    for judgement in read(path):
        counts = found.setdefault(judgement["model"], {"right": 0, "wrong": 0})
        counts["right" if judgement["right"] else "wrong"] += 1
    return found
