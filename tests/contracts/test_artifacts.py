"""A file is whole or not there, and a stage whose code, settings or inputs changed under it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assets import artifacts
from assets.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "metrics.json"
    artifacts.write_json(path, {"map": 1.5})
    with pytest.raises(RuntimeError, match="half"), artifacts.replacing(path) as temporary:
        temporary.write_text("{", encoding="utf-8")
        raise RuntimeError("half")
    assert artifacts.read_json(path) == {"map": 1.5}
    assert names(tmp_path) == ["metrics.json"]


def test_a_failed_write_keeps_the_old_folder(tmp_path):
    model = tmp_path / "base"
    with artifacts.replacing(model) as temporary:
        temporary.mkdir()
        (temporary / "old").touch()
    with pytest.raises(RuntimeError, match="half"), artifacts.replacing(model) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        raise RuntimeError("half")
    assert names(model) == ["old"]
    assert names(tmp_path) == ["base"]


def test_a_folder_is_replaced_whole(tmp_path):
    model = tmp_path / "models" / "base"
    for name in ("old", "new"):
        with artifacts.replacing(model) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert names(model) == ["new"]
    assert names(tmp_path / "models") == ["base"]


KILLED = """
import itertools, json, os, shutil, sys
from pathlib import Path
from assets import artifacts

model, in_one_step = Path(sys.argv[1]), sys.argv[2] == "True"
if not in_one_step:
    artifacts.ctypes.CDLL = lambda *given, **named: object()  # a system that cannot exchange two names

def write(content):
    with artifacts.replacing(model) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text(content)

def die_before(line):
    lines = itertools.count()
    def trace(frame, event, argument):
        if frame.f_code.co_filename != artifacts.__file__:
            return None
        if event == "line" and next(lines) == line:
            os._exit(9)
        return trace
    sys.settrace(trace)

for line in itertools.count():
    shutil.rmtree(model.parent)
    write("old")
    if not (child := os.fork()):
        die_before(line)
        write("new")
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    there = (model / "weights").read_text() if (model / "weights").exists() else None
    print(json.dumps([code, there, sorted(path.read_text() for path in model.parent.glob(".*/weights"))]))
    if code == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process that it forks")
@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_kill_at_any_line_loses_no_folder(tmp_path, checkout, in_one_step):
    """The old one or the new one is there; without a system call for it, at the worst both stand beside it, whole."""
    (tmp_path / "models").mkdir()
    command = [sys.executable, "-c", KILLED, str(tmp_path / "models" / "base"), str(in_one_step)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, timeout=120)
    *killed, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(killed) > 10
    assert last == [0, "new", []]
    assert {there for _, there, _ in killed} == ({"old", "new"} if in_one_step else {"old", "new", None})
    for code, there, beside in killed:
        assert code == 9
        assert there or beside == ["new", "old"]


def test_a_cached_copy_is_not_written_through(tmp_path):
    # dvc may hold the same inode in its cache
    path, cached = tmp_path / "metrics.json", tmp_path / "cached"
    artifacts.write_json(path, 1)
    os.link(path, cached)
    artifacts.write_json(path, 2)
    assert (artifacts.read_json(path), artifacts.read_json(cached)) == (2, 1)


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path):
    path = tmp_path / "metrics.json"
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(path, {"map": float("nan")})
    assert names(tmp_path) == []


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Path]:
    code, data, params = tmp_path / "code", tmp_path / "data", tmp_path / "params.yaml"
    code.mkdir()
    data.mkdir()
    (code / "stage.py").write_text("x = 1\n", encoding="utf-8")
    (data / "images.parquet").write_bytes(b"rows")
    params.write_text("text_tower: {lr: 1}\nreport: {queries: 2}\n", encoding="utf-8")
    return {"code": code, "data": data, "params": params}


def watched(tree: dict[str, Path]):
    return artifacts.unchanged_while_running(
        code=[tree["code"]],
        data=[tree["data"]],
        settings=["text_tower.lr"],
        written={"text_tower": {"lr": 1}, "report": {"queries": 2}},
        params_file=tree["params"],
    )


def test_a_stage_that_nothing_disturbs_succeeds(tree):
    with watched(tree):
        (tree["code"] / "__pycache__").mkdir()
        (tree["code"] / "__pycache__" / "stage.pyc").touch()  # what running the code leaves behind is no change of it
        tree["params"].write_text("# a word\ntext_tower:\n  lr: 1\nreport: {queries: 3}\n", encoding="utf-8")  # another stage's section


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("code", lambda tree: (tree["code"] / "stage.py").write_text("x = 2\n", encoding="utf-8")),
        ("code", lambda tree: (tree["code"] / "more.py").touch()),
        ("code", lambda tree: tree["code"].rename(tree["code"].with_name("moved"))),
        ("params.yaml text_tower.lr", lambda tree: tree["params"].write_text("text_tower: {lr: 2}", encoding="utf-8")),
        ("params.yaml text_tower.lr", lambda tree: tree["params"].write_text("report: {}", encoding="utf-8")),
        ("images.parquet", lambda tree: (tree["data"] / "images.parquet").write_bytes(b"other rows")),
        ("images.parquet", lambda tree: (tree["data"] / "images.parquet").unlink()),
        ("more.parquet", lambda tree: (tree["data"] / "more.parquet").touch()),
    ],
    ids=["edited", "added", "code moved", "setting", "section gone", "input", "input gone", "input added"],
)
def test_a_stage_whose_ground_moved_fails(tree, what, change):
    with pytest.raises(UserError, match=rf"{what}.* changed while the stage was running"), watched(tree):
        change(tree)


def test_a_setting_changed_between_reading_and_start_counts(tree):
    tree["params"].write_text("text_tower: {lr: 2}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"text_tower\.lr"), watched(tree):
        pass


def test_the_stage_s_own_failure_is_not_hidden(tree):
    with pytest.raises(RuntimeError, match="its own"), watched(tree):
        (tree["code"] / "stage.py").unlink()
        raise RuntimeError("its own")
