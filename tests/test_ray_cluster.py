"""The engine on a real Ray cluster of this machine: results as here, whatever is killed. All that needs a cluster is in this file."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from assets import engine
from assets.curated_images.inspection import Inspector, inspect_all
from assets.engine import HERE
from assets.errors import UserError
from assets.kept import FOLDER
from assets.params import LocalEngine, RayEngine
from assets.pictures.decoding import BadPicture
from tests.ray_workers import Doubler

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray on its own; it reads its environment when it is imported, so `head` comes first

SECONDS_TO_START = 600.0
STARTS = 3
OBJECTS = 80 << 20  # bytes of shared memory


@dataclass(frozen=True)
class Head:
    process: psutil.Process
    address: str

    def workers(self) -> list[psutil.Process]:
        """The processes of pools and groups that are at work, oldest first."""
        found = [each for each in self.process.children(recursive=True) if each.is_running() and "ray::_" in " ".join(each.cmdline()[:1])]
        return sorted(found, key=lambda each: each.create_time())


@pytest.fixture(scope="module")
def head(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster of two CPUs that listens on the loopback alone and takes nobody without its token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # what Ray calls it
    folder = tmp_path_factory.mktemp("r")  # a short name: the paths of Ray's sockets are bounded
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--num-gpus=0"]
    options = ["--include-dashboard=false", f"--object-store-memory={OBJECTS}", "--disable-usage-stats", f"--temp-dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (secret | loopback).items():
            patch.setenv(name, value)
        started = _started([*command, *options], folder)
        try:
            yield Head(psutil.Process(started.pid), f"127.0.0.1:{port}")
        finally:
            left = psutil.Process(started.pid).children(recursive=True)
            started.terminate()
            started.wait(60)
            for each in left:
                if each.is_running():
                    each.kill()


def _started(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Ray gives up after 30 seconds, which a busy machine may take."""
    for _ in range(STARTS):
        with (folder / "log").open("w") as log:
            started = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        while started.poll() is None:
            if "will now block" in (folder / "log").read_text(encoding="utf-8"):
                return started
            time.sleep(0.2)
    raise AssertionError((folder / "log").read_text(encoding="utf-8"))


def settings(head: Head, **changed: object) -> RayEngine:
    given = {"kind": "ray", "address": head.address, "workers": 2, "cpus": 1, "retries": 2, "patience_seconds": 600.0} | changed
    return RayEngine.model_validate(given)


@pytest.fixture(scope="module")
def cluster(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[engine.Engine]:
    """Connected from a folder that stays, for workers enter the driver's; a test's own may be gone when another begins."""
    with pytest.MonkeyPatch.context() as patch, engine.opened(settings(head)) as opened:
        patch.chdir(tmp_path_factory.mktemp("home"))
        opened.has_accelerators()
        yield opened


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_killed_worker_s_piece_is_done_by_another_and_no_finished_one_again(cluster, workspace):
    """Checkpointed Ray Data once lost a third of the rows after a kill."""
    pieces = [range(start, start + 3) for start in range(0, 90, 3)]
    pieces[7:9] = [range(0), range(21, 27)]  # an empty one, and a longer
    pulled = 0

    def source() -> Iterator[range]:
        nonlocal pulled
        for piece in pieces:
            pulled += 1
            yield piece

    found, ahead = [], 0
    for number, each in enumerate(cluster.map(Doubler(workspace, deadly=((31, 1),)), source(), 5)):
        found.append(list(each))
        ahead = max(ahead, pulled - number - 1)
    assert found == [[2 * number + 5 for number in piece] for piece in pieces]
    assert ahead <= 2 * 4, "what is in flight is bounded, however many pieces there are"
    assert len((workspace / "opened").read_text().split()) in (2, 3), "each worker loads once, and the lost one's heir"
    begun = (workspace / "begun").read_text().split()
    assert 1 <= len(begun) - len(set(begun)) <= 2, "the piece that it was lost with, and at most the one that it had next"


def test_a_piece_that_no_worker_survives_ends_the_run_with_a_reason(cluster, workspace):
    with pytest.raises(UserError, match=r"3 workers were lost with the same piece of work \(engine\.retries: 2\)"):
        list(cluster.map(Doubler(workspace, deadly=((4, 99),)), [[1], [4], [7]], 0))
    assert [list(each) for each in cluster.map(Doubler(workspace), [[1], [4]], 0)] == [[2], [8]], "the cluster serves on"


def test_what_a_worker_refuses_is_said_as_it_said_it(cluster, workspace):
    with pytest.raises(UserError, match=r"^9 cannot be doubled$"):
        list(cluster.map(Doubler(workspace, refused=9), [[1], [9]], 0))


def test_pictures_are_inspected_as_here_though_a_worker_is_killed(head, cluster, workspace):
    from io import BytesIO

    from PIL import Image

    def picture(number: int) -> bytes:
        stream = BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(stream, "PNG" if number % 2 else "WEBP")
        return stream.getvalue()

    batches = [[picture(start + number) for number in range(4)] + [b"no picture %d" % start] for start in range(0, 80, 4)]
    with_digests = [(batch, [hashlib.sha256(each).digest() for each in batch]) for batch in batches]
    inspector = Inspector({"max_pixels": 1_000_000, "min_side": 8}, 60.0)
    expected = [found for batch in inspect_all(with_digests, inspector, HERE) for found in batch]
    (kept,) = FOLDER.iterdir()
    kept.rename(workspace / "local.sqlite")
    found = []
    for number, batch in enumerate(inspect_all(with_digests, inspector, cluster)):
        found += batch
        if number == 2:
            head.workers()[-1].kill()

    def comparable(each: object) -> object:  # an exception equals itself alone
        return (each.reason, each.detail) if isinstance(each, BadPicture) else each

    assert list(map(comparable, found)) == list(map(comparable, expected))
    assert sum(isinstance(each, BadPicture) for each in found) == len(batches)


def test_embeddings_are_those_of_this_process_to_the_byte(cluster, workspace):
    from assets.clip.encoder import Encoder
    from assets.pictures.split import Split
    from tests.models import write_model
    from tests.training.tables import curated_row, png, write_curated

    random = np.random.default_rng(0)
    write_curated([curated_row("red", view, png(random.integers(0, 256, (36, 36, 3))), "train") for view in range(23)])
    write_model(workspace / "model")
    from assets import artifacts

    how = {"device": "cpu", "precision": "fp32", "batch_size": 4}
    pictures = Split(artifacts.CURATED_IMAGES, "train")
    there = np.array(Encoder(workspace / "model", **how, engine=cluster).images(pictures))
    (kept,) = FOLDER.glob("images-*")
    kept.unlink()
    assert Encoder(workspace / "model", **how).images(pictures).tobytes() == there.tobytes()


def test_a_training_that_loses_a_process_goes_on_from_its_saved_state(cluster, workspace, caplog):
    import torch

    from assets.training.processes import run_in_processes
    from tests.ray_training import regress

    for name in ("here", "there"):
        (workspace / name).mkdir()
    with caplog.at_level("INFO", logger="assets"):
        run_in_processes(2, "cpu", regress, workspace / "there", (2, 1), engine=cluster)
    assert (workspace / "there" / "died").exists()
    told = [record.getMessage() for record in caplog.records]
    assert "resuming in epoch 2, after 1 batches of it" in told, "the log of the first process is passed on"
    run_in_processes(2, "cpu", regress, workspace / "here", None)
    here, there = (torch.load(workspace / name / "weights.pt") for name in ("here", "there"))
    assert there["rows"] == here["rows"]
    assert all(torch.equal(value, there["weights"][name]) for name, value in here["weights"].items())


def test_a_training_goes_on_with_as_many_processes_as_there_is_room_for(cluster):
    """After a machine is gone, waiting for it would take for ever."""
    import ray

    from assets.ray_cluster import _room

    cluster.has_accelerators()  # connects
    cluster._end_pool()

    @ray.remote(num_cpus=1)
    class Other:
        def here(self) -> None:
            pass

    other = Other.remote()
    ray.get(other.here.remote())
    try:
        with _room([2, 1], {"num_cpus": 1, "num_gpus": 0}, 3.0) as (size, _):
            assert size == 1
        with (
            pytest.raises(UserError, match=r"no room for 2 process\(es\) of 1 CPU\(s\) and 0 GPU\(s\)"),
            _room([2], {"num_cpus": 1, "num_gpus": 0}, 1.0),
        ):
            pass
    finally:
        ray.kill(other)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "cancelled"])
def test_a_driver_that_ends_leaves_no_worker(head, workspace, checkout, how):
    """A worker that stays would train on beside the next run. Dagster cancels by SIGTERM, which stages turn into an exit."""
    script = f"""
import os, signal, sys
from pathlib import Path
from assets import engine
from assets.params import RayEngine
from tests.ray_workers import Doubler

os.chdir({str(workspace)!r})
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
settings = RayEngine.model_validate({settings(head, workers=1).model_dump()!r})
with engine.opened(settings) as cluster:
    for each in cluster.map(Doubler(Path.cwd()), ([number] for number in range(10**9)), 0):
        pass
"""
    driver = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(checkout)})
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not (workspace / "begun").exists():
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        worker = int((workspace / "opened").read_text())
    finally:
        driver.send_signal(how)
        driver.wait(120)
    deadline = time.monotonic() + 120
    while psutil.pid_exists(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not psutil.pid_exists(worker)


def test_the_stages_import_no_ray(checkout):
    """Importing Ray takes a second or more; who works on one machine need not have it."""
    script = """
import sys
from assets import engine, params, stages
import assets.clip.encoder, assets.curated_images.stage, assets.image_tower.stage, assets.pseudo_captions.stage, assets.search_table.stage

settings, _ = params.read_params()
with engine.opened(params.LocalEngine(kind="local")) as here:
    assert here is engine.HERE
assert not [name for name in sys.modules if name.split(".")[0] == "ray"]
"""
    subprocess.run([sys.executable, "-c", script], cwd=checkout, check=True)


def test_without_ray_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    given = {"kind": "ray", "address": "local", "workers": 1, "cpus": 1, "retries": 0, "patience_seconds": 1.0}
    with (
        pytest.raises(UserError, match=r"engine\.kind is ray, and Ray is not installed here\..*pip install ray"),
        engine.opened(RayEngine.model_validate(given)),
    ):
        pass
    with engine.opened(LocalEngine(kind="local")) as here:
        assert not here.remote
