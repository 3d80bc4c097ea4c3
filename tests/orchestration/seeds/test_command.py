"""make seeds: finished work is kept and failures are reported.

The runs are of a small pipeline with stand-ins for the stages; tests/test_pulse.py has a real one in a copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from assets import artifacts
from assets.errors import UserError
from orchestration.seeds import __main__ as seeds


def log_of(seed: int) -> str:
    return (artifacts.SEED_RUNS / str(seed) / "log.txt").read_text(encoding="utf-8")


def test_a_failed_seed_is_reported_with_its_log_and_what_is_finished_is_not_repeated(standing_in, tmp_path, caplog):
    (tmp_path / "fails").touch()
    with pytest.raises(UserError, match="1 of 2 seeds succeeded"):
        seeds.run_seeds(2, 2)
    assert not artifacts.SEEDS.exists()
    (failure,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert failure.startswith("seed 1 failed; .cache/seeds/1/log.txt ends with")
    assert "AssertionError: seed 1 is not liked" in log_of(1)
    # seed 0 is done: the code that was edited meanwhile is not what it ran
    edited = Path("assets/evaluation/__init__.py")
    assert "half written" in edited.read_text()
    edited.write_text("")

    (tmp_path / "fails").unlink()
    found = seeds.run_seeds(2, 1)
    assert found == artifacts.read_json(artifacts.SEEDS)
    assert (found["seeds"], found["missing"]) == ([0, 1], [])
    assert found["rows"][1]["measures"]["average"]["values"] == [1, 11]
    assert found["rows"][4]["measures"]["average"]["against_base"]["values"] == [4, 4]
    assert "Running stage" not in log_of(0)
    assert log_of(1).count("Running stage") == 3  # the one that failed, and the two after it


@pytest.mark.parametrize(("count", "abreast"), [(1, 1), (0, 1), (3, 0), (2, 3)])
def test_impossible_numbers_are_refused(count, abreast):
    with pytest.raises(UserError, match="make seeds N="):
        seeds.run_seeds(count, abreast)


def test_what_is_not_a_number_gets_the_usage(capsys):
    assert seeds.main(["three"]) == 2
    assert "python -m orchestration.seeds N [J]" in capsys.readouterr().err
