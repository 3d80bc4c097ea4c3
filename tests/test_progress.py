"""What Dagster receives of a stage that fails; outside Dagster, nothing is sent.

Whole runs are in tests/orchestration/test_dvc_stage.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dagster_pipes import PipesContext, encode_param

from assets import progress
from assets.errors import Unreachable, UserError

CONTEXT = {"asset_keys": None, "code_version_by_asset_key": None, "provenance_by_asset_key": None, "partition_key": None}
CONTEXT |= {"partition_key_range": None, "partition_time_window": None, "run_id": "1", "job_name": None, "retry_number": 0, "extras": {}}


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that Dagster would read."""
    for name, value in (("CONTEXT", CONTEXT), ("MESSAGES", None)):
        path = tmp_path / name
        path.write_text(json.dumps(value) if value else "", encoding="utf-8")
        monkeypatch.setenv(f"DAGSTER_PIPES_{name}", encode_param({"path": str(path)}))
    return tmp_path / "MESSAGES"


@pytest.mark.parametrize(("error", "retry"), [(UserError("a wrong setting"), False), (Unreachable("no network"), True)])
def test_a_failure_is_sent_with_whether_another_try_may_succeed(received, error, retry):
    with pytest.raises(UserError), progress.attached():
        raise error
    sent = [json.loads(line) for line in received.read_text(encoding="utf-8").splitlines()]
    (payload,) = [each["params"]["payload"] for each in sent if each["method"] == "report_custom_message"]
    assert payload == {"error": str(error), "retry": retry}
    assert sent[-1]["method"] == "closed"
    PipesContext._instance = None  # a process has one for its life; the next test opens another


def test_outside_dagster_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    with progress.attached():
        progress.report(seconds=1.0)
