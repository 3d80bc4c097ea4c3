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
_lock = threading.Lock()


def append(path: Path, judgement: dict[str, Any]) -> None:
    """UserError where the file is full, or cannot be written."""
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **judgement}, ensure_ascii=False) + "\n"
    with _lock:
        try:
            if path.exists() and path.stat().st_size + len(line) > MOST_BYTES:
                raise UserError(f"{path} has reached {MOST_BYTES // 2**20} MiB. Move it away; a new one begins.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise UserError(f"the judgement was not kept: {path} cannot be written ({error.strerror}).") from None


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Those that hold, in the order in which their questions first came. A broken last line, of a killed service, is left out."""
    latest: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                judgement = json.loads(line)
                latest[json.dumps([judgement["query"], judgement["id"], judgement["model"]], sort_keys=True)] = judgement
            except (ValueError, KeyError, TypeError):
                continue
    yield from latest.values()


def summary(path: Path) -> dict[str, dict[str, int]]:
    """By model, how many hits were called right and wrong."""
    found: dict[str, dict[str, int]] = {}
    for judgement in read(path):
        counts = found.setdefault(str(judgement["model"]), {"right": 0, "wrong": 0})
        counts["right" if judgement["right"] else "wrong"] += 1
    return found
