"""What runs in the copies: an interruption ends all of it, and one command at a time starts it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import yaml

from assets.errors import UserError
from orchestration.seeds.runs import Runs, alone


def test_an_interruption_ends_dvc_and_its_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    script = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"long": {"cmd": f'{sys.executable} -c "{script}"'}}}))
    runs, succeeded = Runs(None), []
    thread = threading.Thread(target=lambda: succeeded.append(runs.repro(tmp_path, 0)))
    thread.start()
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    runs.stop()
    thread.join(20)
    assert succeeded == [False]
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid.read_text()], capture_output=True, text=True, check=False).stdout.strip()
    assert state[:1] in ("", "Z")
    assert runs.repro(tmp_path, 0) is False  # nothing is started any more


def test_two_at_once_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with alone(), pytest.raises(UserError, match="already running"), alone():
        pass
