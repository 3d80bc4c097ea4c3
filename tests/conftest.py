"""What tests of several packages share: where the checkout is, and the whole pipeline, made once."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.tiny_project import Project

# A shell that starts us in the background leaves interrupts ignored, here and in every child; tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def project(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny project after `dvc repro`. A test that changes it puts it back."""
    from tests.tiny_project import TINY, Project, copy_checkout, make_pictures  # loads dagster, which most tests do without

    folder = tmp_path_factory.mktemp("pulse") / "a checkout"
    made = Project(folder, home=tmp_path_factory.mktemp("site"))
    copy_checkout(checkout, folder)
    for section, settings in TINY.items():
        made.change(section, **settings)
    made.run("git", "add", "--all")
    made.run("git", "-c", "user.name=Pulse", "-c", "user.email=pulse@localhost", "commit", "-q", "-m", "the checkout, with tiny settings")
    make_pictures(folder / "data" / "images")
    made.dvc("repro")
    return made
