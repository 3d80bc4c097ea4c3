"""The commands: every profile's model is built and its cost printed; `use` says what it changed, and a wrong name is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from assets.profiles.__main__ import main
from assets.profiles.overlay import profiles


@pytest.fixture(autouse=True)
def _in_a_folder(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(checkout / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_command_builds_every_model(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert {(row[0], row[1]) for row in shown} == {(name, stage) for name in profiles() for stage in ("image_tower", "text_tower")}
    by_name = {(row[0], row[1]): row for row in shown}
    # 304.3 M parameters; forward 382 GFLOP a picture (two a multiply-add), backward twice that, the forward pass again; 128 pictures
    assert by_name["vit_l_14_336", "image_tower"][3] == "304.3"
    assert float(by_name["vit_l_14_336", "image_tower"][7]) == pytest.approx(4 * 0.382 * 128, rel=0.01)


def test_use_prints_each_change_and_then_that_there_is_none(capsys: pytest.CaptureFixture[str]):
    main(["use", "demo"])
    capsys.readouterr()
    assert main(["use", "vit_b_32"]) == 0
    assert 'params.yaml: base_clip: {source: "demo"} → {source: "open_clip"}' in capsys.readouterr().out
    assert main(["use", "vit_b_32"]) == 0
    assert capsys.readouterr().out.strip() == "params.yaml has the settings of vit_b_32 already."


def test_an_unknown_profile_is_reported_with_the_known_ones(capsys: pytest.CaptureFixture[str]):
    assert main(["use", "vit"]) == 1
    assert "given profile 'vit'; known are ablation, demo, " in capsys.readouterr().err


def test_a_wrong_command_prints_the_usage(capsys: pytest.CaptureFixture[str]):
    assert main(["copy", "demo"]) == 2
    assert "use NAME" in capsys.readouterr().err


def test_use_loads_no_torch(checkout: Path):
    script = "import sys; from assets.profiles.__main__ import main; main(['use', 'vit_b_32']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(checkout)!r}); {script}"], check=True)
