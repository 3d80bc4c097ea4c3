"""What tests of several packages share: where the checkout is."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest

# A shell that starts us in the background leaves interrupts ignored, here and in every child; tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(autouse=True)
def _loggers_speak() -> None:
    """Setting up a Dagster instance's database (alembic's logging configuration) turns off all loggers that exist by then."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "assets" and isinstance(logger, logging.Logger):
            logger.disabled = False
