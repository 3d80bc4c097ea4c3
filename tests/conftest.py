"""What tests of several packages share: where the checkout is."""

from __future__ import annotations

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
