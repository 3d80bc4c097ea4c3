"""What the defaults gain on a collection, and the best of the sweep, from the files that a run or `make seeds` leaves."""

import shutil

import pytest

from assets import artifacts
from assets.commands import gains
from assets.errors import UserError
from assets.profiles.overlay import use
from tests.commands.rows import row
from tests.training.tables import write_colors


@pytest.fixture
def folder(checkout, tmp_path, monkeypatch):
    shutil.copyfile(checkout / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    write_colors({"red": (220, 30, 30), "green": (30, 180, 60)})
    return tmp_path


def run(*gained):
    """metrics.json whose rows gain so many points."""
    rows = [row("base", 30.0, 0, "tie"), *(row(name, 30.0 + points, points, "better") for name, points in gained)]
    artifacts.write_json(artifacts.METRICS, {"rows": rows})


def test_a_run_without_the_sweep_has_its_gain_alone(folder, capsys):
    run(("gpr", 9.0), ("mcip_rea", 2.0))
    assert gains.main([" photographs "]) == 0
    entry = artifacts.read_json(gains.GAINS)["photographs"]
    assert (entry["seeds"], entry["base"], entry["recipe"], entry["gain"]["points"], entry["best"]) == (1, 30.0, "mcip_rea", 2.0, None)
    assert (entry["training_classes"], entry["test_classes"]) == (2, 0)
    assert "| photographs | " in capsys.readouterr().out


def test_the_best_point_of_the_sweep_is_named_and_other_collections_stay(folder):
    """A sweep that took gpr for one of its points, or that overwrote the file, would show another table."""
    use("sweep")
    run(("gpr", 9.0), ("mcip_rea", 2.0), ("s2", 1.0), ("s4", 2.5))
    artifacts.write_json(gains.GAINS, {"drawings": {}})
    entry = gains.gains("photographs")
    assert entry["best"] == "s4"
    assert entry["sweep"]["s4"]["about"] == "twice the steps, realigned"
    assert list(artifacts.read_json(gains.GAINS)) == ["drawings", "photographs"]
    assert gains.gains_table({"photographs": entry})[-1].endswith("| 30.0 | +2.0 [±0.0, ±0.0] | +2.5 (twice the steps) |")


def test_seeds_are_taken_where_they_were_run(folder):
    run(("mcip_rea", 2.0))
    measured = {"mean": 31.0, "interval": [29.0, 33.0], "values": [30.0, 32.0]}
    against = {"mean": 0.4, "interval": [-0.2, 1.0], "outcome": "tie", "values": [0.2, 0.6], "holds": True}
    rows = [
        {"recipe": "base", "measures": {"average": measured}},
        {"recipe": "mcip_rea", "measures": {"average": measured | {"against_base": against}}},
    ]
    artifacts.write_json(artifacts.SEEDS, {"seeds": [0, 1], "rows": rows})
    entry = gains.gains("few")
    assert (entry["seeds"], entry["base"], entry["gain"]["points"]) == (2, 31.0, 0.4)
    assert "| +0.4 [−0.2, +1.0], a tie | – |" in gains.gains_table({"few": entry})[-1]


@pytest.mark.parametrize(
    ("name", "gained", "told"), [("", ("mcip_rea", 1.0), "given no name"), ("few", ("gpr", 1.0), "no average of base or of mcip_rea")]
)
def test_what_is_missing_is_said(folder, name, gained, told):
    run(gained)
    with pytest.raises(UserError, match=told):
        gains.gains(name)


def test_no_run_is_no_gain(folder):
    with pytest.raises(UserError, match=r"no data.promotion"):
        gains.gains("few")
