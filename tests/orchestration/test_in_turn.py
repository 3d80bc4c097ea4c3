"""The executor: a run that waits for its retry ends at once when it is terminated, what killed runs left is cleared up first, and two
runs of the same assets at once both end well."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from dagster import DagsterInstance, DagsterRunStatus

if TYPE_CHECKING:
    from tests.orchestration.conftest import Toy

DEFINITIONS = """
from pathlib import Path
from dagster import Definitions, RetryPolicy
from orchestration.in_turn import in_turn
from orchestration.stage_assets import read_pipeline, stage_asset
here = Path.cwd()
retries = RetryPolicy(max_retries=1, delay=300)
assets = [stage_asset(stage, here, lambda address: {}, lambda address: [], retries) for stage in read_pipeline(here)]
defs = Definitions(assets=assets, executor=in_turn(here))
"""


@pytest.mark.parametrize("wish", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_run_that_waits_for_its_retry_can_be_terminated(wish: signal.Signals, toy: Toy):
    toy.write("raw.txt", "other words\n")
    toy.write("fail", "no network")
    toy.write("unreachable", "")
    toy.write("definitions_of_the_toy.py", DEFINITIONS)
    (toy.folder / "home").mkdir()
    with DagsterInstance.local_temp(str(toy.folder / "home")) as instance:
        killed = toy.definitions().resolve_implicit_global_asset_job_def()
        left = instance.create_run_for_job(killed, status=DagsterRunStatus.STARTED)  # its file is there, and nobody locks it
        toy.write(f".cache/orchestration/runs/{left.run_id}", "null")
        with (toy.folder / "run.log").open("wb") as log:
            run = subprocess.Popen(
                [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "key:words", "-f", "definitions_of_the_toy.py"],
                cwd=toy.folder,
                env=toy.environment | {"DAGSTER_HOME": instance.root_directory},
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + 120
            while "STEP_UP_FOR_RETRY" not in toy.read("run.log"):
                assert run.poll() is None and time.monotonic() < deadline, toy.read("run.log")
                time.sleep(0.1)
            time.sleep(1)  # it sleeps until the retry
            run.send_signal(wish)
            assert run.wait(10) != 0
        finally:
            run.kill()
            run.wait()
        statuses = {record.dagster_run.run_id: record.dagster_run.status for record in instance.get_run_records()}
    assert statuses.pop(left.run_id) == DagsterRunStatus.FAILURE
    assert list(statuses.values()) in ([DagsterRunStatus.CANCELED], [DagsterRunStatus.FAILURE])
    assert toy.runs() == 1
    assert not list((toy.folder / ".cache/orchestration/runs").iterdir())


def test_two_runs_of_the_same_assets_at_once_both_end_well(toy: Toy):
    """The second waited for the first's `words`, and its dvc then said «is busy», for the first had gone on to what reads `words`."""
    toy.write("raw.txt", "other words\n")
    toy.write("definitions_of_the_toy.py", DEFINITIONS)
    toy.write("assets/copy/run.py", toy.read("assets/copy/run.py") + "\nimport time\ntime.sleep(2)\n")
    (toy.folder / "home").mkdir()
    with DagsterInstance.local_temp(str(toy.folder / "home")) as instance:
        instance.event_log_storage.get_concurrency_keys()  # two first runs at once would both create Dagster's own tables
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "-f", "definitions_of_the_toy.py", "--select"]
        both = [
            subprocess.Popen(
                [*command, "key:words or key:copy/a"],
                cwd=toy.folder,
                env=toy.environment | {"DAGSTER_HOME": instance.root_directory},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(2)
        ]
        said = [run.communicate(timeout=180)[0] for run in both]
        assert [run.returncode for run in both] == [0, 0], said
        assert [record.dagster_run.status for record in instance.get_run_records()] == [DagsterRunStatus.SUCCESS] * 2
    assert any("waiting for it" in each for each in said)
    assert toy.runs() == 1
    assert toy.read("data/copy_a.txt").startswith("OTHER WORDS")
