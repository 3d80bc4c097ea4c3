"""A file is whole or not there, and a stage whose code, settings or inputs changed under it fails."""

from __future__ import annotations

import os
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
        code=[tree["code"]], data=[tree["data"]], settings={"text_tower": {"lr": 1}}, params_file=tree["params"]
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
        ("params.yaml section text_tower", lambda tree: tree["params"].write_text("text_tower: {lr: 2}", encoding="utf-8")),
        ("params.yaml section text_tower", lambda tree: tree["params"].write_text("report: {}", encoding="utf-8")),
        ("images.parquet", lambda tree: (tree["data"] / "images.parquet").write_bytes(b"other rows")),
        ("images.parquet", lambda tree: (tree["data"] / "images.parquet").unlink()),
        ("more.parquet", lambda tree: (tree["data"] / "more.parquet").touch()),
    ],
    ids=["edited", "added", "setting", "section gone", "input", "input gone", "input added"],
)
def test_a_stage_whose_ground_moved_fails(tree, what, change):
    with pytest.raises(UserError, match=rf"{what}.* changed while the stage was running"), watched(tree):
        change(tree)


def test_a_setting_changed_between_reading_and_start_counts(tree):
    tree["params"].write_text("text_tower: {lr: 2}\n", encoding="utf-8")
    with pytest.raises(UserError, match="section text_tower"), watched(tree):
        pass


def test_the_stage_s_own_failure_is_not_hidden(tree):
    with pytest.raises(RuntimeError, match="its own"), watched(tree):
        (tree["code"] / "stage.py").unlink()
        raise RuntimeError("its own")
