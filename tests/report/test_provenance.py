"""What a report was made from."""

from __future__ import annotations

import subprocess
import sys

from assets.artifacts import read_yaml
from assets.report.provenance import dvc_md5, flat, settings_diff


def test_hashes_are_those_that_dvc_records(tmp_path):
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    for name in ("a.txt", "a/z.txt", "a/b/c.txt", "Ü.txt", "a-b.txt"):
        (folder / name).write_text(f"content of {name}\r\n", encoding="utf-8")
    (tmp_path / "single.txt").write_text("alone\n")
    for arguments in (["init", "--no-scm", "-q"], ["add", "-q", "folder", "single.txt"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True, capture_output=True)
    for name in ("folder", "single.txt"):
        (out,) = read_yaml(tmp_path / f"{name}.dvc")["outs"]
        assert dvc_md5(tmp_path / name) == out["md5"]


def test_settings_are_named_by_their_path():
    assert flat({"lr": 1, "augmentation": {"flip": True}}, "image_tower") == {"image_tower.lr": 1, "image_tower.augmentation.flip": True}


def test_a_difference_is_a_value_or_a_setting_that_one_side_lacks():
    before, after = {"a": 1, "b": 2, "gone": None}, {"new": None, "b": 3, "a": 1}
    assert settings_diff(before, after) == [
        {"setting": "new", "before": None, "after": None},
        {"setting": "b", "before": 2, "after": 3},
        {"setting": "gone", "before": None, "after": None},
    ]
