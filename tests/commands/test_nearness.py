"""The table by which pseudo_captions.min_z is chosen: one line per value, and a higher limit never finds more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assets import artifacts
from assets.commands import nearness
from tests.models import write_model
from tests.settings import demo_text
from tests.training.tables import write_colors


def test_a_line_for_each_value_and_less_is_found_with_a_higher_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nearness, "CLASSES", (2, 100))  # the second are more than there are
    monkeypatch.setattr(nearness, "VALUES", np.array([-9.0, 0.0, 9.0]))
    Path("params.yaml").write_text(demo_text(), encoding="utf-8")
    write_model(artifacts.model_dir("base"))
    write_colors({"red": (220, 30, 30), "green": (30, 220, 30), "blue": (40, 60, 220)})
    assert nearness.main([]) == 0
    header, *lines = capsys.readouterr().out.splitlines()[-4:]
    assert header.split() == ["min_z", "cosine", "precision", "recall", "F1", "few", "held", "out", "found", "fewer", "none"]
    rows = np.array([[float(field) for field in line.split()] for line in lines])
    z, cosine, precision, recall, _, few, held_out, found, fewer, none = rows.T
    assert z.tolist() == nearness.VALUES.tolist()
    assert (np.diff(cosine) > 0).all()
    # of the corpus's red, green, blue and «a colour» two are each image's own; the class names are never found
    assert (precision[0], recall[0], recall[-1], none[-1]) == (0.5, 1.0, 0.0, 100.0)
    assert (np.diff(recall) <= 0).all() and (np.diff(found) <= 0).all() and (np.diff(fewer) >= 0).all()
    assert few.max() == held_out.max() == 1.0


def test_an_argument_prints_what_the_command_does(capsys: pytest.CaptureFixture[str]):
    assert nearness.main(["help"]) == 2
    assert "min_z" in capsys.readouterr().err
