"""params.yaml validates, and a wrong setting is named, with what was given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.errors import UserError
from assets.params import read_params

GONE = object()


def edited(checkout: Path, tmp_path: Path, setting: str, value: Any) -> Path:
    """A copy of params.yaml with one setting (section.key.key) changed, added or GONE."""
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    *sections, key = setting.split(".")
    holder = written
    for section in sections:
        holder = holder[section]
    if value is GONE:
        del holder[key]
    else:
        holder[key] = value
    copy = tmp_path / "params.yaml"
    copy.write_text(yaml.safe_dump(written), encoding="utf-8")
    return copy


def test_the_committed_settings_are_right(checkout):
    params, written = read_params(checkout / "params.yaml")
    assert written.keys() == type(params).model_fields.keys()


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("image_tower.epohcs", 3, "no such setting"),
        ("image_towr", {}, "no such setting"),
        ("text_tower.lr", GONE, "missing"),
        ("report", GONE, "missing"),
        ("image_tower.margin", 2.0, "given 2.0"),
        ("image_tower.epochs", 0, "given 0"),
        ("image_tower.epochs", "three", "given 'three'"),
        ("text_tower.lr", "fast", "given 'fast'"),
        ("image_tower.augmentation.scale", [1.2, 0.8], "low <= high"),
        ("image_tower.device", "gpu", "given 'gpu'"),
        ("base_clip.patience", -1, "given -1"),
        ("curated_images.min_images_per_class", 1, "given 1"),
        ("curated_images.test_fraction", 1.0, "given 1.0"),
        ("evaluation.prompts", ["a picture"], "{}"),
        ("search_table.recipe", "mcp", "'mcip_rea'"),
        ("source_images.kind", "folder", "'image_folder'"),
        ("promotion.must_rise", {"speed": 1.0}, "'caption_to_image'"),
        ("promotion.must_not_fall", {"knn": -1.0}, "given -1.0"),
        ("promotion.must_not_fall", ["knn"], "given ['knn']"),
        ("orchestration.retrain_cron", "weekly", "weekly"),
    ],
)
def test_a_wrong_setting_is_named(checkout, tmp_path, setting, value, told):
    with pytest.raises(UserError) as raised:
        read_params(edited(checkout, tmp_path, setting, value))
    line = next(line for line in str(raised.value).splitlines() if setting in line)
    assert told in line


def test_an_unknown_base_is_told_with_the_known_ones(checkout, tmp_path):
    with pytest.raises(UserError, match=r"base_clip.*'clip'.*'demo', 'open_clip'"):
        read_params(edited(checkout, tmp_path, "base_clip.source", "clip"))


def test_every_wrong_setting_is_told_at_once(checkout, tmp_path):
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    written["report"]["queries"] = 0
    written["text_tower"]["batch"] = 8
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)2 wrong setting.*(report\.queries.*text_tower\.batch|text_tower\.batch.*report\.queries)"):
        read_params(path)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "a: [1\n", "just words"])
def test_a_file_that_is_no_mapping_is_told_by_name(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"params\.yaml"):
        read_params(path)


def test_no_file_at_all(tmp_path):
    with pytest.raises(UserError, match="checkout"):
        read_params(tmp_path / "params.yaml")


def command(*arguments: str, cwd: Path, checkout: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_command_tells_a_wrong_setting_without_a_traceback(checkout, tmp_path):
    edited(checkout, tmp_path, "image_tower.epohcs", 3)
    for asked in ("--check", "report"):
        done = command("-m", "assets", asked, cwd=tmp_path, checkout=checkout)
        assert done.returncode == 1
        assert "image_tower.epohcs: no such setting" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_command_tells_an_unknown_stage(checkout):
    done = command("-m", "assets", "evaluation@clip", cwd=checkout, checkout=checkout)
    assert done.returncode == 1
    assert "evaluation@mcip_rea" in done.stderr
    assert "Traceback" not in done.stderr


def test_checking_settings_imports_nothing_heavy(checkout):
    script = (
        "import sys; from assets.__main__ import main; assert main(['--check']) == 0; "
        "print(*sorted({'torch', 'lancedb', 'great_expectations', 'matplotlib', 'open_clip', 'faiss'} & sys.modules.keys()))"
    )
    done = command("-c", script, cwd=checkout, checkout=checkout)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
