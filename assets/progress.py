"""Progress of long work: a live bar on a terminal, a log line every few seconds elsewhere (CI, dvc's log); and what Dagster is told of it.

The only module of assets that knows of Dagster. Outside it, `report` and `attached` do nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from assets.errors import UserError

logger = logging.getLogger(__name__)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], total: int, what: str, unit: str = "it") -> Iterator[T]:
    """Yield `items`, telling how many of `total` are done, how fast, and how long it will still take."""
    if not logger.isEnabledFor(logging.INFO):
        yield from items
        return
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=unit, leave=False)
        return
    begun = told = time.monotonic()
    done = -1
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES:
            told = now
            rate = done / (now - begun)
            logger.info("%s: %d of %d, %.0f %s/s, %.0f s left", what, done, total, rate, unit, (total - done) / max(rate, 1e-9))
        yield item
    report(**{f"{what}: {unit}/s": round((done + 1) / max(time.monotonic() - begun, 1e-9), 1)})


def report(**metadata: Any) -> None:
    """Tell Dagster something about the running stage, in plain JSON values; it is shown with the asset."""
    if "DAGSTER_PIPES_CONTEXT" in os.environ:
        from dagster_pipes import PipesContext

        if PipesContext.is_initialized():
            PipesContext.get().report_custom_message(metadata)


@contextlib.contextmanager
def attached() -> Iterator[None]:
    """Inside, `report` reaches the Dagster run that started this process, if one did, and so does the log of assets, line by line."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        log = logging.getLogger("assets")
        handler = _ToDagster(pipes.log)
        log.addHandler(handler)
        try:
            yield
        except UserError as error:
            report(error=str(error))
            raise
        finally:
            log.removeHandler(handler)


class _ToDagster(logging.Handler):
    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log.log(record.levelno, record.getMessage())
