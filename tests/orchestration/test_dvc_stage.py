"""One stage, run for real: what reaches Dagster, and that nothing is left running or half-written, whatever is killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus, MetadataValue, RetryPolicy, materialize

from orchestration import dvc_stage, stage_assets
from orchestration.dvc_stage import alive, dead_runs, end_orphans, living_runs, running
from orchestration.record import asset_key
from orchestration.stage_assets import UNCHANGED, PipelineStage, read_pipeline, remove_half_written, stage_asset
from tests.orchestration.workspace import lives

if TYPE_CHECKING:
    from tests.orchestration.conftest import Toy

WORKER = (
    "import sys, pathlib\nfrom orchestration.dvc_stage import alone_at, reproduce\n"
    "with alone_at('words', pathlib.Path.cwd(), print) as held:\n    reproduce(held, {}, sys.argv[1], print)\n"
)


def test_the_pipeline_is_read_as_dvc_resolves_it(toy: Toy):
    stages = {stage.address: stage for stage in read_pipeline(toy.folder)}
    assert list(stages) == ["words", "copy@a", "copy@b", "both"]
    assert stages["copy@b"] == PipelineStage(
        "copy@b",
        "The words for b.",
        {"group": "training", "kinds": ["text"], "pool": "compute"},
        upstream=("words",),
        sources=(),
        outputs=("data/copy_b.txt",),
        recipe="`python assets/copy/run.py b`\n- setting `curated_images.seed`\n- code `assets/copy`",
    )
    assert stages["words"].sources == ("raw.txt",)


def test_log_and_metadata_of_the_stage_reach_dagster(toy: Toy):
    toy.write("raw.txt", "four words of it\n")
    with DagsterInstance.ephemeral() as instance:
        result = toy.materialize(instance, "words")
        (event,) = result.get_asset_materialization_events()
        shown = event.step_materialization_data.materialization.metadata
        assert (shown["words"].value, shown["made"].value) == (4, "now, by `dvc repro`")
        assert shown["images/s"].value == 2.5, "the last of what was told"
        assert "a line of the stage's log" in [entry.user_message for entry in instance.all_logs(result.run_id)]
        again = toy.materialize(instance, "words")
        (event,) = again.get_asset_materialization_events()
        assert event.step_materialization_data.materialization.metadata == shown | {"made": MetadataValue.text(UNCHANGED)}
        assert not [entry for entry in instance.all_logs(again.run_id) if entry.level >= logging.WARNING], "nothing to be warned of"


@pytest.mark.parametrize(("unreachable", "runs"), [(False, 1), (True, 2)])
def test_a_failed_stage_fails_the_run_with_its_own_words_after_another_try_where_a_network_failed(unreachable, runs: int, toy: Toy):
    said = "the registry cannot be reached"  # whatever the words: what counts is the flag
    toy.write("raw.txt", "other words\n")
    toy.write("fail", said)
    if unreachable:
        toy.write("unreachable", "")
    words = stage_asset(read_pipeline(toy.folder)[0], toy.folder, lambda address: {}, lambda address: [], RetryPolicy(max_retries=1))
    with DagsterInstance.ephemeral() as instance:
        result = materialize([words], instance=instance, raise_on_error=False)
        assert not result.success
        (failed,) = result.get_step_failure_events()
        assert failed.step_failure_data.user_failure_data.description == said
        assert toy.runs() == runs


@pytest.fixture
def waiting(toy: Toy):
    """A run that is in the middle of the stage `words`: (its worker, dvc's process id, the stage's)."""
    toy.write("raw.txt", "other words\n")
    toy.write("wait", "")
    worker = subprocess.Popen([sys.executable, "-c", WORKER, "a run"], cwd=toy.folder, stderr=subprocess.DEVNULL)
    stage = toy.started()
    (dvc,) = psutil.Process(worker.pid).children()
    try:
        yield worker, dvc, stage
    finally:
        worker.kill()
        worker.wait()
        end_orphans(toy.folder, lambda text: None)
        assert not lives(stage)


def goes_on(toy: Toy) -> None:
    """What is killed blocks nothing: dvc's own door makes the stage, and its result is whole."""
    (toy.folder / "wait").unlink()
    toy.dvc("repro", "words")
    assert toy.read("data/words.txt") == "OTHER WORDS\n"
    assert running(toy.folder) == []


def test_an_interruption_ends_all_within_ten_seconds(toy: Toy, waiting):
    worker, dvc, stage = waiting
    begun = time.monotonic()
    worker.send_signal(signal.SIGINT)  # what Dagster turns Terminate into
    assert worker.wait(30) != 0
    assert time.monotonic() - begun < 10
    assert not lives(dvc)
    assert not lives(stage)
    goes_on(toy)


def test_a_killed_run_is_marked_as_failed_and_holds_no_slot(toy: Toy):
    script = (
        "import pathlib, sys, time\nfrom orchestration.dvc_stage import alive\n"
        "with alive(sys.argv[1], pathlib.Path.cwd()):\n    print('at it', flush=True)\n    time.sleep(600)\n"
    )
    with DagsterInstance.local_temp(str(toy.folder)) as instance:
        job = toy.definitions().resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
        instance.event_log_storage.set_concurrency_slots("compute", 1)
        assert instance.event_log_storage.claim_concurrency_slot("compute", run.run_id, "copy").is_claimed
        worker = subprocess.Popen([sys.executable, "-c", script, run.run_id], cwd=toy.folder, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "at it\n"
        toy.tick(instance)
        assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.STARTED, "it lives"
        worker.kill()
        worker.communicate()
        toy.tick(instance)
        assert instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE
        assert instance.event_log_storage.claim_concurrency_slot("compute", "another", "copy").is_claimed


def test_a_stage_is_held_until_dagster_has_stored_it(toy: Toy, monkeypatch):
    toy.write("raw.txt", "other words\n")
    seen: list[tuple[bool, list[str]]] = []

    def let_go(instance: DagsterInstance) -> None:
        stored = instance.get_latest_materialization_event(asset_key("words")) is not None
        seen.append((stored, running(toy.folder)))

    with DagsterInstance.ephemeral() as instance:

        @contextlib.contextmanager
        def watched(*arguments, **options):
            with dvc_stage.alone_at(*arguments, **options) as held:
                yield held
                let_go(instance)

        monkeypatch.setattr(stage_assets, "alone_at", watched)
        assert toy.materialize(instance, "words").success
    assert seen == [(True, ["words"])]


def test_runs_that_begin_or_end_are_not_taken_for_dead(tmp_path: Path):
    with alive("a run", tmp_path):
        assert list(dead_runs(tmp_path)) == []
        assert list(living_runs(tmp_path)) == [("a run", os.getpid())]
        assert [path.name for path in (tmp_path / ".cache/orchestration").iterdir()] == ["runs"]
    assert list((tmp_path / ".cache/orchestration/runs").iterdir()) == []
    (tmp_path / ".cache/orchestration/runs/killed").write_text("1")
    assert list(dead_runs(tmp_path)) == ["killed"]
    assert list(dead_runs(tmp_path)) == []


def test_a_process_that_got_the_number_of_a_killed_run_is_not_taken_for_it(tmp_path: Path):
    path = tmp_path / ".cache/orchestration/runs/killed"
    path.parent.mkdir(parents=True)
    for since, living in ((psutil.Process().create_time() + 1, [("killed", os.getpid())]), (psutil.Process().create_time() - 60, [])):
        path.write_text(json.dumps({"process": os.getpid(), "since": since}))
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # as one that looks whether the run is dead
            assert list(living_runs(tmp_path)) == living


def test_a_run_leaves_a_stage_that_another_run_is_at_to_that_run(toy: Toy):
    toy.set("curated_images", seed=7)
    with DagsterInstance.ephemeral() as instance:
        toy.tick(instance)
        with dvc_stage.alone_at("copy@a", toy.folder, print):
            toy.dvc("repro", "copy@a")  # made, and not yet stored
            before = instance.get_latest_materialization_event(asset_key("copy@a"))
            toy.materialize(instance, "copy@b")
            assert instance.get_latest_materialization_event(asset_key("copy@a")) == before
        assert toy.tick(instance) == ["copy@a"]


def test_a_living_run_is_waited_for(toy: Toy, waiting):
    worker, _, stage = waiting
    assert running(toy.folder) == ["words"]
    second = subprocess.Popen([sys.executable, "-c", WORKER, "second"], cwd=toy.folder, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert "another run is at words" in second.stdout.readline()
    assert lives(stage)
    (toy.folder / "wait").unlink()
    assert worker.wait(60) == 0
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert toy.runs() == 1
    assert toy.read("data/words.txt") == "OTHER WORDS\n"


def test_a_run_waits_for_a_shell_s_dvc_that_reads_what_it_makes(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    """dvc itself gives up at once («is busy»), which failed the run for good."""
    monkeypatch.setattr(dvc_stage, "SECONDS_BETWEEN_TRIES", 0.2)
    reads = "import time\nopen('reads.tmp', 'w').close()\nwhile Path('wait').exists():\n    time.sleep(0.05)\n"
    toy.write("assets/copy/run.py", toy.read("assets/copy/run.py") + reads)
    toy.write("wait", "")
    shell = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "copy@a"], cwd=toy.folder, env=toy.environment)
    deadline = time.monotonic() + 60
    while not (toy.folder / "reads.tmp").exists():
        assert shell.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    toy.write("assets/words/run.py", toy.read("assets/words/run.py").replace('Path("wait")', 'Path("nothing")') + "# reverse")
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        (toy.folder / "wait").unlink()

    with dvc_stage.alone_at("words", toy.folder, print) as held:
        dvc_stage.reproduce(held, {}, "a run", tell)
    assert shell.wait(60) == 0
    (only,) = told
    assert "another dvc is at files of words" in only and f"(PID {shell.pid})" in only and "12 hours at most" in only
    assert toy.runs() == 1


def test_patience_with_a_busy_dvc_ends(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    """A zombie's entry would otherwise hold a run up for ever."""
    monkeypatch.setattr(dvc_stage, "SECONDS_OF_PATIENCE", -1.0)
    toy.write("raw.txt", "other words\n")
    ours = {"pid": os.getpid(), "cmd": "a test"}
    toy.write(".dvc/tmp/rwlock", json.dumps({"write": {}, "read": {str(toy.folder / "data/words.txt"): [ours]}}))
    with dvc_stage.alone_at("words", toy.folder, print) as held, pytest.raises(dvc_stage.StageFailed, match="left with exit code"):
        dvc_stage.reproduce(held, {}, "a run", print)
    assert toy.runs() == 0


def test_what_another_run_reads_is_left_alone_until_it_has_read_it(toy: Toy):
    order: list[str] = []
    waits = threading.Event()

    def writer() -> None:
        with dvc_stage.alone_at("words", toy.folder, lambda text: waits.set()):
            order.append("written")

    with dvc_stage.alone_at("copy@a", toy.folder, print, reads=["words"]):
        with dvc_stage.alone_at("copy@b", toy.folder, print, reads=["words"]):  # two may read side by side
            assert running(toy.folder) == ["copy@a", "copy@b"], "who only reads is not at it"
        thread = threading.Thread(target=writer)
        thread.start()
        assert waits.wait(10)
        time.sleep(1)
        order.append("read")
    thread.join(10)
    assert order == ["read", "written"]
    with dvc_stage.alone_at("words", toy.folder, print):
        told: list[str] = []
        reader = threading.Thread(target=lambda: _read_words(toy, told))
        reader.start()
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            time.sleep(0.05)
        assert told == ["another run is at words, or reads what it made: waiting for it."]
    reader.join(10)
    assert told[-1] == "read"


def _read_words(toy: Toy, told: list[str]) -> None:
    with dvc_stage.alone_at("copy@a", toy.folder, told.append, reads=["words"]):
        told.append("read")


def test_half_written_outputs_of_dead_processes_are_removed(toy: Toy):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        toy.write(f"data/.words.txt.{pid}.tmp", "half")
        toy.write(f"data/.model.{pid}.tmp/weights", "half")
    remove_half_written(toy.folder, ("data/words.txt", "data/model"))
    left = {path.name for path in (toy.folder / "data").glob(".*.tmp")}
    assert left == {f".words.txt.{os.getpid()}.tmp", f".model.{os.getpid()}.tmp"}


def test_a_killed_stage_is_retried(toy: Toy):
    toy.write("raw.txt", "other words\n")
    toy.write("wait", "")

    def kill() -> None:
        stage = toy.started()
        (toy.folder / "wait").unlink()
        stage.kill()

    words = stage_asset(read_pipeline(toy.folder)[0], toy.folder, lambda address: {}, lambda address: [], RetryPolicy(max_retries=1))
    killer = threading.Thread(target=kill)
    killer.start()
    with DagsterInstance.ephemeral() as instance:
        assert materialize([words], instance=instance).success
        killer.join()
        assert instance.get_latest_materialization_event(asset_key("words")) is not None
    assert toy.runs() == 2
