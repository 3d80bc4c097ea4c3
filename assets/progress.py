"""Progress of long work: a live bar on a terminal, a log line every few seconds elsewhere (CI, dvc's log, Dagster)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], total: int, what: str, unit: str = "it") -> Iterator[T]:
    """Yield `items`, telling how many of `total` are done, how fast, and how long it will still take."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=unit, leave=False)
        return
    begun = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES:
            told = now
            rate = done / (now - begun)
            logger.info("%s: %d of %d, %.0f %s/s, %.0f s left", what, done, total, rate, unit, (total - done) / max(rate, 1e-9))
        yield item
