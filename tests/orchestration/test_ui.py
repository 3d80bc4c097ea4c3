"""Dagster's pages as `make ui` starts them, in a copy of the checkout with a few pictures: looked at and clicked in a real browser.

The picture of the page is kept in .cache/tests. Without a browser that part is skipped, unless ONESPACE_REQUIRE_CHROMIUM is set.
"""

from __future__ import annotations

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
import yaml
from PIL import Image

from orchestration.stage_assets import read_pipeline
from tests.orchestration import chromium

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


@pytest.fixture(scope="module")
def pages(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("ui") / "a checkout"
    wanted = ("assets", "orchestration", "data", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *wanted]
    listed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (checkout / name).is_file() and not name.startswith("data/report"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["source_images"]["kind"] = "image_folder"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    text = (folder / "dvc.yaml").read_text(encoding="utf-8")
    (folder / "dvc.yaml").write_text(text.replace("\nplots:\n", ENDLESS), encoding="utf-8")
    for name, color in {"red/1.png": "red", "red/2.png": "pink", "blue/1.png": "blue"}.items():
        (folder / "data/images" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), color).save(folder / "data/images" / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / ".dagster").mkdir()
    shutil.copy(folder / "orchestration/dagster.yaml", folder / ".dagster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(folder / ".dagster"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path_factory.mktemp("site")),
    }
    with (folder / "pages.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-m", "orchestration.definitions", "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        shown = Pages(folder, f"http://127.0.0.1:{port}", process)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    shown.ask("{ version }")
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < deadline, (folder / "pages.log").read_text(errors="replace")
                    time.sleep(0.5)
            yield shown
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)


@pytest.mark.skipif(
    chromium.find() is None and not os.environ.get("ONESPACE_REQUIRE_CHROMIUM"),
    reason=f"no browser: none of {', '.join(chromium.NAMES)} is on PATH",
)
def test_a_browser_sees_every_asset_materializes_one_and_sees_its_metadata(pages: Pages, checkout: Path, tmp_path: Path):
    kept = checkout / ".cache" / "tests"
    kept.mkdir(parents=True, exist_ok=True)
    with chromium.page(tmp_path / "profile", width=1600, height=3200) as page:
        page.open(f"{pages.address}/assets")
        names = [stage.address.replace("@", " / ") for stage in read_pipeline(pages.folder)]
        assert "endless" in names, "a stage that only dvc.yaml knows"
        page.wait_for(*names)
        page.open(f"{pages.address}/assets/source_images")
        page.wait_for("Every picture of the source named in params.yaml")
        page.click("Materialize")
        deadline = time.monotonic() + 90
        while pages.statuses() != ["SUCCESS"]:
            assert time.monotonic() < deadline, (pages.folder / "pages.log").read_text(errors="replace")[-3000:]
            time.sleep(0.5)
        page.open(f"{pages.address}/assets/source_images")  # a page that nobody looks at does not renew itself
        shown = page.wait_for("now, by `dvc repro`", "five rows", "red/1.png")
        assert re.search(r"Row count\s+3\b", shown)
        page.picture(kept / "source_images.png")
    with Image.open(kept / "source_images.png") as picture:
        assert picture.size == (1600, 3200)


def test_terminate_stops_everything_within_ten_seconds(pages: Pages):
    run = pages.ask(LAUNCH, job="full_pipeline", keys=[{"path": ["endless"]}])["launchRun"]["run"]["runId"]
    deadline = time.monotonic() + 90
    while not (told := pages.folder / "pid.txt").exists() or not told.read_text():
        assert time.monotonic() < deadline, (pages.folder / "pages.log").read_text(errors="replace")[-3000:]
        time.sleep(0.2)
    stage = psutil.Process(int(told.read_text()))
    dvc = stage.parent()
    begun = time.monotonic()
    pages.ask(TERMINATE, run=run)
    while pages.status_of(run) != "CANCELED" or any(each is not None and _lives(each) for each in (stage, dvc)):
        assert time.monotonic() - begun < 10
        time.sleep(0.1)


def test_ctrl_c_stops_pages_and_daemon(pages: Pages):
    family = psutil.Process(pages.process.pid).children(recursive=True)
    assert len(family) >= 3, "the pages, the daemon and the code server"
    os.killpg(pages.process.pid, signal.SIGINT)  # what a terminal does
    pages.process.wait(60)
    deadline = time.monotonic() + 30
    while left := [each for each in family if _lives(each)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
