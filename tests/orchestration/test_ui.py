"""Dagster's pages as `make ui` starts them, in a copy of the checkout with a few pictures: looked at and clicked in a real browser.

The picture of the page is kept in .cache/tests. Without a browser that part is skipped, unless ONESPACE_REQUIRE_CHROMIUM is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dagster import DagsterRunStatus
from PIL import Image

from orchestration.sensors import clear_up
from orchestration.stage_assets import read_pipeline
from tests import chromium
from tests.orchestration.workspace import Workspace, lives
from tests.tiny_project import TINY, copy_checkout

ENDLESS = """
  endless:
    desc: Waits for ever.
    cmd: python -c "import os, time, pathlib; pathlib.Path('pid.txt').write_text(str(os.getpid())); time.sleep(600)"
    outs: [data/never.txt]
    meta: {group: data, kinds: [text]}

plots:
"""
LAUNCH = """mutation($job: String!, $keys: [AssetKeyInput!]) { launchRun(executionParams: {mode: "default", runConfigData: {}, selector: {
    repositoryLocationName: "orchestration.definitions", repositoryName: "__repository__", jobName: $job, assetSelection: $keys}})
  { ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
TERMINATE = "mutation($run: String!) { terminateRun(runId: $run) { __typename } }"


class Pages:
    def __init__(self, folder: Path, address: str, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.address, self.process = folder, address, process

    def ask(self, query: str, **variables: Any) -> Any:
        request = urllib.request.Request(
            f"{self.address}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def statuses(self) -> list[str]:
        return [run["status"] for run in self.ask("{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]]

    def status_of(self, run: str) -> str:
        return self.ask(STATUS, run=run)["runOrError"]["status"]

    def log(self) -> str:
        return (self.folder / "pages.log").read_text(errors="replace")[-4000:]

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def launch_endless(self) -> tuple[str, psutil.Process, psutil.Process]:
        """A run that has begun the stage that never ends: (its id, the stage, dvc)."""
        told = self.folder / "pid.txt"
        told.unlink(missing_ok=True)
        run = self.ask(LAUNCH, job="full_pipeline", keys=[{"path": ["endless"]}])["launchRun"]["run"]["runId"]
        deadline = time.monotonic() + 90
        while not told.exists() or not told.read_text():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)
        stage = psutil.Process(int(told.read_text()))
        (dvc,) = [each for each in stage.parents() if "dvc" in each.cmdline()]
        return run, stage, dvc


@pytest.fixture(scope="module")
def workspace(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The checkout with three pictures and a stage that never ends."""
    folder = tmp_path_factory.mktemp("ui") / "a checkout"
    copy_checkout(checkout, folder)
    made = Workspace(folder, tmp_path_factory.mktemp("site"))
    made.change("source_images", **TINY["source_images"])
    text = (made.folder / "dvc.yaml").read_text(encoding="utf-8")
    (made.folder / "dvc.yaml").write_text(text.replace("\nplots:\n", ENDLESS), encoding="utf-8")
    for name, color in {"red/1.png": "red", "red/2.png": "pink", "blue/1.png": "blue"}.items():
        (made.folder / "data/images" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), color).save(made.folder / "data/images" / name)
    shutil.rmtree(made.folder / ".dagster")  # `make ui` makes it
    return made


@contextlib.contextmanager
def opened(workspace: Workspace) -> Iterator[Pages]:
    """`make ui`, with this environment in place of .venv, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in workspace.environment.items() if not name.startswith("DAGSTER_")}
    command = ["make", "--old-file=.venv/installed", "ui", f"RUN='{sys.executable}' -m", f"PORT={port}"]
    log = workspace.folder / "pages.log"
    with log.open("ab") as file:
        process = subprocess.Popen(command, cwd=workspace.folder, env=environment, stdout=file, stderr=file, start_new_session=True)
    shown = Pages(workspace.folder, f"http://127.0.0.1:{port}", process)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                shown.ask("{ version }")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, shown.log()
                time.sleep(0.5)
        yield shown
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="module")
def pages(workspace: Workspace) -> Iterator[Pages]:
    with opened(workspace) as shown:
        yield shown


@chromium.needed
def test_a_browser_sees_every_asset_materializes_one_and_sees_its_metadata(pages: Pages, checkout: Path, tmp_path: Path):
    kept = checkout / ".cache" / "tests"
    kept.mkdir(parents=True, exist_ok=True)
    with chromium.page(tmp_path / "profile", width=1600, height=3200) as page:
        page.open(f"{pages.address}/assets")
        names = [stage.address.replace("@", " / ") for stage in read_pipeline(pages.folder)]
        assert "endless" in names, "a stage that only dvc.yaml knows"
        page.wait_for(*names)
        page.open(f"{pages.address}/assets/source_images")
        page.wait_for("Every picture of the sources named in params.yaml")
        page.click("Materialize")
        deadline = time.monotonic() + 90
        while pages.statuses() != ["SUCCESS"]:
            assert time.monotonic() < deadline, pages.log()
            time.sleep(0.5)
        page.open(f"{pages.address}/assets/source_images")  # a page that nobody looks at does not renew itself
        shown = page.wait_for("now, by `dvc repro`", "five rows", "red/1.png")
        assert re.search(r"Row count\s+3\b", shown)
        page.picture(kept / "source_images.png")
    with Image.open(kept / "source_images.png") as picture:
        assert picture.size == (1600, 3200)


def test_terminate_stops_everything_within_ten_seconds(pages: Pages):
    run, stage, dvc = pages.launch_endless()
    begun = time.monotonic()
    pages.ask(TERMINATE, run=run)
    while pages.status_of(run) != "CANCELED" or lives(stage) or lives(dvc):
        assert time.monotonic() - begun < 10
        time.sleep(0.1)


def test_a_killed_daemon_stops_the_pages_and_not_the_run_which_can_still_be_ended(pages: Pages, workspace: Workspace):
    run, stage, dvc = pages.launch_endless()
    family = pages.family()
    (daemon,) = [each for each in family if "dagster._daemon" in each.cmdline()]
    daemon.kill()
    pages.process.wait(60)
    assert "dagster-daemon process shut down unexpectedly" in pages.log()
    with workspace.instance() as instance:
        clear_up(instance, workspace.folder)
        assert lives(stage), "it can go on to its end"
        instance.report_run_canceled(instance.get_run_by_id(run))  # what the pages' «force termination» does
        clear_up(instance, workspace.folder)
        assert not [each for each in psutil.wait_procs([dvc, stage], timeout=10)[1] if lives(each)]
        assert instance.get_run_by_id(run).status == DagsterRunStatus.CANCELED
    assert not [each for each in psutil.wait_procs(family, timeout=60)[1] if lives(each)], "the code server waits for its run, no longer"


def test_ctrl_c_stops_pages_daemon_and_the_run(workspace: Workspace):
    with opened(workspace) as pages:
        run, stage, dvc = pages.launch_endless()
        family = {*pages.family(), *dvc.parents()[:1], dvc, stage}
        assert len(family) >= 6, "the pages, the daemon, the code server, the run, dvc, the stage"
        os.killpg(pages.process.pid, signal.SIGINT)  # what a terminal does
        assert not [each for each in psutil.wait_procs([dvc, stage], timeout=10)[1] if lives(each)]
        pages.process.wait(20)  # 4 s on an idle machine
        assert not [each for each in psutil.wait_procs(family, timeout=20)[1] if lives(each)]
    with workspace.instance() as instance:
        assert instance.get_run_by_id(run).is_finished
