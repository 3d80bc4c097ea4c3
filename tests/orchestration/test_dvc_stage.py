"""Materializing runs dvc for real, in a pipeline of three tiny stages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dagster import DagsterInstance, Failure, materialize

from orchestration import dvc_stage
from orchestration.stage_assets import PipelineStage, read_pipeline, stage_asset

PIPELINE = """\
stages:
  words:
    desc: A file of words.
    cmd: echo made >> runs && echo words > words
    outs: [words]
    meta: {group: data, kinds: [text]}
  copy:
    desc: The words for ${item.recipe}.
    matrix: {recipe: [a, b]}
    cmd: cp words words_${item.recipe}
    deps: [words]
    outs:
      - words_${item.recipe}
    meta: {group: data, kinds: [text], pool: compute}
  broken:
    desc: Never made.
    cmd: echo told by the stage && exit 7
    meta: {group: data, kinds: [text]}
  endless:
    desc: Waits.
    cmd: python -c "import os, time, pathlib; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(120)"
    outs: [never]
    meta: {group: data, kinds: [text]}
"""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project with a space"
    project.mkdir()
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=project, check=True)
    (project / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    monkeypatch.setattr(dvc_stage, "CHECKOUT", project)
    return project


def test_the_pipeline_is_read_as_dvc_resolves_it(pipeline):
    stages = {stage.address: stage for stage in read_pipeline(pipeline)}
    assert list(stages) == ["words", "copy@a", "copy@b", "broken", "endless"]
    assert stages["copy@b"] == PipelineStage(
        "copy@b", "The words for b.", {"group": "data", "kinds": ["text"], "pool": "compute"}, upstream=("words",)
    )


def test_materializing_reproduces_that_stage_alone_and_skips_what_is_up_to_date(pipeline):
    words, copy, *_ = [stage_asset(stage) for stage in read_pipeline(pipeline)]
    with DagsterInstance.ephemeral() as instance:
        assert materialize([words], instance=instance).success
        assert materialize([words], instance=instance).success
        assert (pipeline / "runs").read_text() == "made\n"
        assert not (pipeline / "words_a").exists()
        assert materialize([copy], instance=instance).success
    assert (pipeline / "words_a").read_text() == "words\n"
    assert not (pipeline / "words_b").exists()


def test_a_failed_stage_fails_the_run_and_says_where_to_look(pipeline, capfd):
    (broken,) = [stage for stage in read_pipeline(pipeline) if stage.address == "broken"]
    with DagsterInstance.ephemeral() as instance, pytest.raises(Failure, match="dvc repro --single-item broken"):
        materialize([stage_asset(broken)], instance=instance)
    assert "told by the stage" in capfd.readouterr().out


def test_an_interruption_leaves_no_process_behind(pipeline, checkout):
    script = (
        "import pathlib; from orchestration import dvc_stage\n"
        f"dvc_stage.CHECKOUT = pathlib.Path({str(pipeline)!r}); dvc_stage.reproduce('endless')"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=checkout, stderr=subprocess.DEVNULL) as door:
        deadline = time.monotonic() + 60
        while not (pid_file := pipeline / "pid").exists() or not pid_file.read_text():
            assert time.monotonic() < deadline, "the stage did not start"
            time.sleep(0.1)
        door.send_signal(signal.SIGINT)
        door.wait(30)
    stage = int((pipeline / "pid").read_text())
    while _lives(stage):
        assert time.monotonic() < deadline, "the stage outlived its run"
        time.sleep(0.1)
    # and dvc's lock is free again
    assert subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "words"], cwd=pipeline, check=False).returncode == 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
