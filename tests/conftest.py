"""What tests of several packages share: where the checkout is, and the whole pipeline, made once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assets.machine import tune_for_torch

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

    from tests.tiny_project import Project

# A shell that starts us in the background leaves interrupts ignored, here and in every child; tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` runs them in several processes: each, and what it starts, takes its share of the cores.
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))

tune_for_torch()  # before any test loads torch: tests in several processes share the cores

CHECKOUT = Path(__file__).resolve().parent.parent


# the files whose tests share the one pipeline below
PIPELINE = ("tests/test_pulse.py", "tests/orchestration/test_real_pipeline.py", "tests/orchestration/test_weekly_drops.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if processes:  # the longest begins first
        items.sort(key=lambda item: not item.nodeid.startswith(PIPELINE))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """For several processes: tests of one file stay together, and so do all of the one pipeline."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "the pipeline" if nodeid.startswith(PIPELINE) else nodeid.partition("::")[0]

    return ByFile(config, log)


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
    made.git("add", "--all")
    made.git("commit", "-q", "-m", "the checkout, with tiny settings")
    make_pictures(folder / "data" / "images")
    made.dvc("repro")
    return made
