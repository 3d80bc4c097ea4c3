"""Progress of long work: a live bar on a terminal, elsewhere (CI, dvc's log) a log line every few seconds; and reports to Dagster.

The only module of assets that knows Dagster. Outside it, `report` and `attached` do nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from assets.errors import Unreachable, UserError

logger = logging.getLogger(__name__)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], total: int, what: str, unit: str = "it") -> Iterator[T]:
    """Yield `items`, and show how many of `total` are done, how fast, and how long the rest will take."""
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
    """Send Dagster metadata of the running stage, as plain JSON values. Dagster shows it with the asset."""
    if _elsewhere:
        _elsewhere[-1](("report", metadata))
    elif "DAGSTER_PIPES_CONTEXT" in os.environ:
        from dagster_pipes import PipesContext

        if PipesContext.is_initialized():
            PipesContext.get().report_custom_message(metadata)


@contextlib.contextmanager
def attached() -> Iterator[None]:
    """Inside, `report` and the log of assets reach the Dagster run that started this process, if one did.

    A UserError is reported as `error`, and with it `retry`: whether another try may succeed.
    """
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
            report(error=str(error), retry=isinstance(error, Unreachable))
            raise
        finally:
            log.removeHandler(handler)


Message = tuple[str, Any]  # what `passing_on` sends and `pass_on` takes
_elsewhere: list[Callable[[Message], None]] = []


@contextlib.contextmanager
def passing_on(send: Callable[[Message], None]) -> Iterator[None]:
    """Inside, `report` and the log of assets go to `send`: this process works for another one, which Dagster started, or a person."""
    log = logging.getLogger("assets")
    handler = _ToSender(send)
    _elsewhere.append(send)
    log.addHandler(handler)
    log.propagate = False  # else it would be told here, too
    try:
        yield
    finally:
        log.propagate = True
        log.removeHandler(handler)
        _elsewhere.pop()


def pass_on(message: Message) -> None:
    """What another process sent, told as if it were this one's."""
    kind, what = message
    if kind == "report":
        report(**what)
    else:
        logger.log(*what)


class _ToSender(logging.Handler):
    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send(("log", (record.levelno, "%s", record.getMessage())))


class _ToDagster(logging.Handler):
    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        self.log.log(record.levelno, record.getMessage())
