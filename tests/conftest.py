"""What tests of several packages share: where the checkout is, and the whole pipeline, made once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assets.machine import tune_for_torch

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

    from tests.s3_server import Server
    from tests.tiny_project import Project

# A shell that starts us in the background leaves interrupts ignored, here and in every child; tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` runs them in several processes: each, and what it starts, takes its share of the cores.
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))

tune_for_torch()  # before any test loads torch: tests in several processes share the cores

CHECKOUT = Path(__file__).resolve().parent.parent


# files whose tests share what is dear to make, so that one process runs them: the pipeline below, the server of S3 below
SHARED = {
    "the pipeline": (
        "tests/test_pulse.py",
        "tests/contracts/test_stale.py",
        "tests/orchestration/test_real_pipeline.py",
        "tests/orchestration/test_weekly_drops.py",
    ),
    "the bucket": ("tests/test_addresses.py", "tests/test_remote.py", "tests/search_table/test_sharing.py"),
}
# what takes longest begins first: whichever is left when the other processes have nothing to do is waited for
LONGEST = (
    "the pipeline",
    "tests/test_ray_cluster.py",
    "tests/orchestration/test_ui.py",
    "tests/orchestration/test_same_status.py",
    "tests/training/test_processes.py",
    "tests/search_table/test_versions.py",
    "tests/test_doors.py",
    "tests/orchestration/test_dvc_stage.py",
    "tests/text_tower/test_both_stages.py",
    "the bucket",
)


def scope_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((name for name, files in SHARED.items() if file in files), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if processes:
        places = {scope: place for place, scope in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(scope_of(item.nodeid), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """For several processes: tests of one file stay together, and so do those that share what is dear."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return ByFile(config, log)


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def project(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny project after `dvc repro`. A test that changes it puts it back."""
    from tests.tiny_project import TINY, Project, copy_checkout, make_pictures  # loads dvc, which most tests do without

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


@pytest.fixture(scope="session")
def s3_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.s3_server import s3_server

    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def s3(s3_of_the_session: Server) -> Iterator[Server]:
    """A server of S3, which the environment names for the tests of a module. Each module has its own folders in the one bucket."""
    import fsspec

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_of_the_session.environment.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # connections of other settings
        yield s3_of_the_session
