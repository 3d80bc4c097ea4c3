"""The job `rollback`, over a real table."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pytest
from dagster import DagsterEventType, DagsterInstance

from assets import artifacts
from assets.params import read_params
from assets.search_table.writing import write_table
from orchestration.definitions import define
from orchestration.rollback import rollback_job
from tests.search_table.conftest import RECIPE, curated_rows, make_workplace, write_curated


def ran(place: Path, version: str | None):
    with DagsterInstance.ephemeral() as instance:
        config = {"ops": {"roll_back": {"config": {"version": version}}}}
        return rollback_job(place).execute_in_process(run_config=config, instance=instance, raise_on_error=False)


def test_it_is_among_the_jobs(checkout: Path):
    assert define(checkout).resolve_job_def("rollback").description


@pytest.mark.parametrize("version", [None, "publish-0007"])
def test_it_fails_in_the_command_s_words(version: str | None, tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch):
    """A rollback that did nothing was shown as a success."""
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    done = ran(tmp_path, version)
    assert not done.success
    assert "there is no table in data/lancedb, so there is nothing to go back to" in str(done.failure_data_for_node("roll_back").error)


def test_it_goes_back_and_the_asset_says_so(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch):
    """Dagster's page of search_table showed the publish that was no longer visible, and nothing else."""
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    (tmp_path / "model").mkdir()
    (tmp_path / "place").mkdir()
    make_workplace(tmp_path / "place", checkout, tmp_path / "model", monkeypatch)
    for per_class in (5, 6):
        rows = curated_rows(per_class)
        write_curated(rows)
        ids = [row["id"] for row in rows]
        write_table(np.eye(len(ids), 32, dtype=np.float32), ids, {}, RECIPE, "a" * 64, read_params()[0].search_table)
    done = ran(tmp_path / "place", None)
    assert done.success
    (observed,) = [event for event in done.all_events if event.event_type == DagsterEventType.ASSET_OBSERVATION]
    assert "shows publish-0001 again: 22 rows" in str(observed.asset_observation_data.asset_observation.metadata["rolled back"].value)
    assert lancedb.connect(artifacts.LANCEDB).open_table("images").count_rows() == 22
