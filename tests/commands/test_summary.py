"""What `make demo` ends with."""

from __future__ import annotations

import os
import subprocess

import pytest

from assets import artifacts
from assets.commands import summary
from tests.commands.rows import METRICS


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.METRICS, METRICS)
    artifacts.write_json(artifacts.VERDICT, {"recipe": "mcip_rea", "decision": "hold", "reasons": ["k-NN must not fall, but fell."]})


def test_the_summary_tells_the_rows_and_where_things_are(made, capsys):
    assert summary.main() == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    assert ["base", *["31.2"] * 6] in lines
    assert ["mcip", *["30.0", "tie"] * 6] in lines
    assert ["mcip_rea", *["20.0", "−11.2"] * 6] in lines
    assert "mcip_rea against mcip: image→image mAP −10.0, image→image R@1 −10.0, zero-shot −10.0," in told
    assert "average −10.0, the rest ties" in told
    assert "mcip_rea, held back: k-NN must not fall, but fell." in told
    assert "tie: the 95 % interval of the difference holds 0" in told
    assert "report   none yet; `make report` makes it" in told
    assert "table    none yet; a recipe that is not held back makes it" in told
    assert told.count('make search Q="a red heart"') == 1


def test_the_summary_tells_an_override(made, capsys):
    verdict = {"recipe": "mcip_rea", "decision": "publish", "reasons": [], "override_reason": "a demonstration"}
    artifacts.write_json(artifacts.VERDICT, verdict)
    assert summary.main() == 0
    assert "mcip_rea, published though the gate said no: a demonstration" in capsys.readouterr().out


@pytest.mark.parametrize(("decision", "kept"), [("publish", ""), ("hold", ", as it was before")])
def test_the_summary_tells_where_the_table_is(made, capsys, decision, kept):
    artifacts.LANCEDB.mkdir()
    artifacts.write_json(artifacts.VERDICT, artifacts.read_json(artifacts.VERDICT) | {"decision": decision, "override_reason": None})
    assert summary.main() == 0
    assert f"table    data/lancedb (LanceDB, table images){kept}\n" in capsys.readouterr().out


PYTHON = """#!/bin/sh
echo "$*" >> told
case "$*" in
  *" repro") exit $REPRO ;;
  *" status "*) exit $STATUS ;;
esac
"""


@pytest.mark.parametrize(
    ("repro", "status", "summarised"),
    [(0, 0, True), (255, 0, True), (255, 1, False)],  # done; held back after a report that is up to date; failed before it
)
def test_make_demo_ends_with_the_summary_of_what_it_made_and_with_its_failure(checkout, tmp_path, repro, status, summarised):
    for name in ("requirements.lock", "pyproject.toml", ".ci/torchvision_without_cuda.py", ".venv/bin/python", ".venv/installed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PYTHON if name.endswith("python") else "")
    (tmp_path / ".venv/bin/python").chmod(0o755)
    given = {"PATH": os.environ["PATH"], "REPRO": str(repro), "STATUS": str(status)}
    command = ["make", "-f", str(checkout / "Makefile"), "demo"]
    made = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert (made.returncode != 0) == (repro != 0), made.stderr
    told = (tmp_path / "told").read_text().splitlines()
    before = ["-m assets.commands.code --sources", "-m assets --check", "-m assets.commands.plan"]
    assert told[:5] == ["-m dvc config --local core.no_scm true", *before, "-m dvc repro"]
    assert ("-m assets.commands.summary" in told) == summarised


def test_only_the_command_line_names_the_source_with_whatever_signs(checkout, tmp_path):
    """A variable SOURCE of the shell's must not replace the pictures, and make must not read a $ in a name."""
    (tmp_path / ".git").mkdir()
    for name in ("requirements.lock", "pyproject.toml", ".ci/torchvision_without_cuda.py", ".venv/bin/python", ".venv/installed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PYTHON if name.endswith("python") else "")
    (tmp_path / ".venv/bin/python").chmod(0o755)
    given = {"PATH": os.environ["PATH"], "REPRO": "0", "STATUS": "0", "SOURCE": "/of/the/shell"}
    for target in ("demo", "plan"):
        for words in ([], ["SOURCE=/a b/été $1 'x'"]):
            command = ["make", "-f", str(checkout / "Makefile"), target, *words]
            subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, check=True)
    told = (tmp_path / "told").read_text().splitlines()
    assert [line for line in told if "commands.source" in line] == ["-m assets.commands.source /a b/été $1 'x'"] * 2


def test_without_a_verdict_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert summary.main() == 1
    assert "dvc repro promotion" in capsys.readouterr().err


def test_base_stands_first_wherever_it_was_measured(made, capsys):
    artifacts.write_json(artifacts.METRICS, METRICS | {"rows": METRICS["rows"][::-1]})
    artifacts.REPORT.mkdir()
    artifacts.REPORT_PAGE.touch()
    assert summary.main() == 0
    shown = capsys.readouterr().out
    names = [line.split()[0] for line in shown.splitlines() if line.startswith(("base", "gpr", "mcip")) and " against " not in line]
    assert names == ["base", "mcip_rea", "mcip", "gpr"]
    assert "report   data/report/index.html, file://" in shown
