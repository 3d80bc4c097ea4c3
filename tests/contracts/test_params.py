"""params.yaml validates, and every wrong setting is named with what was given: rows of recipes by row and setting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.errors import UserError
from assets.params import checked_params, read_params
from tests.settings import demo_settings

GONE = object()
RAY = {"kind": "ray", "address": "auto", "workers": 2, "cpus": 1, "retries": 3, "patience_seconds": 60.0}
TABLE = {"kind": "table", "root": "x.csv", "pictures": None, "columns": {"image": "x"}, "license": "", "attribution": ""}


def edited(tmp_path: Path, setting: str, value: Any) -> Path:
    """The demo's settings with one (section.key.key) changed, added or GONE, as a file."""
    written = demo_settings()
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
        ("base_clip.validations", 0, "given 0"),
        ("image_tower.captions", "mine", "'own', 'found' or 'both'"),
        ("curated_images.min_images_per_class", 1, "given 1"),
        ("curated_images.test_fraction", 1.0, "given 1.0"),
        ("evaluation.prompts", ["a picture"], "{}"),
        ("image_tower.way_back", [0.5, 1.0], "given 1.0"),
        ("text_tower.max_batch_share", 0.0, "given 0.0"),
        ("recipes", GONE, "missing"),
        ("recipes.measured", [], "given []"),
        ("training.processes", 0, "given 0"),
        ("engine.kind", "spark", "'local', 'ray'"),
        ("engine.address", "auto", "no such setting"),
        ("source_images.sources", [], "given []"),
        ("promotion.must_rise", {"speed": 1.0}, "'caption_to_image'"),
        ("promotion.must_not_fall", {"knn": -1.0}, "given -1.0"),
        ("promotion.must_not_fall", ["knn"], "given ['knn']"),
        ("orchestration.retrain_cron", "weekly", "weekly"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, setting, value, told):
    with pytest.raises(UserError) as raised:
        read_params(edited(tmp_path, setting, value))
    line = next(line for line in str(raised.value).splitlines() if setting in line)
    assert told in line


def row(start: str = "base", about: str = "a row", **changed: Any) -> dict[str, Any]:
    return {"from": start, "about": about, **changed}


@pytest.mark.parametrize(
    ("setting", "value", "named", "told"),
    [
        ("recipes.image_tower.wide", row(margn=0.3), "recipes.image_tower.wide.margn", "no such setting"),
        ("recipes.image_tower.wide", row(views=2), "recipes.image_tower.wide.views", "no such setting"),  # text_tower has it
        ("recipes.image_tower.wide", row(margin="wide"), "recipes.image_tower.wide.margin", "given 'wide'"),
        ("recipes.image_tower.wide", row(margin=3.0), "recipes.image_tower.wide.margin", "given 3.0"),
        ("recipes.image_tower.wide", row(guards={"min_spread": 2.0}), "recipes.image_tower.wide.guards.min_spread", "given 2.0"),
        ("recipes.image_tower.wide", {"about": "a row"}, "recipes.image_tower.wide.from", "missing"),
        ("recipes.image_tower.wide", {"from": "base"}, "recipes.image_tower.wide.about", "missing"),
        ("recipes.image_tower.wide", row(about=""), "recipes.image_tower.wide.about", "given ''"),
        ("recipes.image_tower.wide", None, "recipes.image_tower.wide", "given None"),
        ("recipes.image_tower.wide", row("gpt"), "recipes.image_tower.wide.from", "given 'gpt'; known are base, gpr"),
        ("recipes.image_tower.wide", row("wide"), "recipes.image_tower.wide.from", "itself"),
        ("recipes.image_tower.gpr", row("gpr_rea"), "recipes.image_tower.gpr.from", "itself"),
        ("recipes.image_tower.gpr", row("gpr_rea"), "recipes.text_tower.gpr_rea.from", "itself"),
        ("recipes.image_tower.demo", row(margn=0.3), "recipes.image_tower.demo.margn", "no such setting"),
        ("recipes.text_tower.gpr", row(), "recipes.text_tower.gpr", "name"),
        ("recipes.text_tower.base", row(), "recipes.text_tower.base", "name"),
        ("recipes.text_tower.a/b", row(), "recipes.text_tower.a/b", "name"),
        ("recipes.measured", ["gpr", "mcip_rea"], "recipes.measured", "base"),
        ("recipes.measured", ["base", "mcip_rea", "wide"], "recipes.measured", "given 'wide'"),
        ("recipes.measured", ["base", "mcip_rea", "mcip_rea"], "recipes.measured", "twice"),
        ("recipes.measured", ["base", "gpr"], "promotion.recipe", "given 'mcip_rea'; recipes.measured has base, gpr"),
        ("promotion.recipe", "mcp", "promotion.recipe", "given 'mcp'"),
        ("promotion.pairs", [["mcip_rea", "gpr"], ["mcip", "mcp"]], "promotion.pairs[1]", "given 'mcp'"),
        ("promotion.pairs", [["gpr", "gpr"]], "promotion.pairs[0]", "given 'gpr' twice"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, setting, value, named, told):
    with pytest.raises(UserError) as raised:
        read_params(edited(tmp_path, setting, value))
    lines = [line for line in str(raised.value).splitlines() if line.startswith(f"  {named}: ")]
    assert any(told in line for line in lines), str(raised.value)


def test_a_row_from_a_row_is_right(tmp_path):
    written = demo_settings()
    written["recipes"]["text_tower"]["x"] = row("wide", lr=1e-3)
    written["recipes"]["image_tower"]["wide"] = row(margin=0.3)
    params = checked_params(written, "params.yaml")
    assert (params.recipe["wide"].settings.margin, params.recipe["x"].settings.lr) == (0.3, 1e-3)


@pytest.mark.parametrize(
    ("row_of_gpr", "told"), [({"batch_size": 129}, "batch_size of gpr must be a multiple, and is 129"), ({"precision": "fp16"}, "Use bf16")]
)
def test_a_row_that_several_processes_cannot_train_is_named(row_of_gpr, told):
    written = demo_settings()
    written["training"]["processes"] = 2
    written["recipes"]["image_tower"]["gpr"] |= row_of_gpr
    with pytest.raises(UserError) as raised:
        checked_params(written, "params.yaml")
    assert "  training.processes: given 2" in str(raised.value)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("base_clip.source", "clip", r"base_clip\.source.*'clip'.*'demo', 'open_clip'"),
        ("engine", RAY | {"address": "http://head:8265"}, r"engine\.address: given 'http://head:8265'.*the address of a job server"),
        ("engine", RAY | {"address": "head"}, r"engine\.address: given 'head'.*must be auto, local, or the host and port"),
        ("engine", {"kind": "ray", "address": "auto"}, r"engine\.workers: missing"),
        (
            "source_images.sources",
            [{"kind": "image_folder", "root": "x", "folders": ["label", "split"], "license": "", "attribution": ""}],
            r"folders.*must be \[label\] or \[family, label\] or",
        ),
        ("source_images.sources", [TABLE | {"columns": {"label": "x"}}], r"columns: given .*must name the column of the pictures"),
        ("source_images.sources", [TABLE | {"columns": {"image": "x", "lable": "y"}}], r"sources\[0\]\.columns\.lable"),
        ("source_images.sources", [TABLE, TABLE | {"name": "b"}], r"source_images\.sources\[0\]\.name: missing; of several sources each"),
        ("source_images.sources", [TABLE | {"name": "b"}] * 2, r"source_images\.sources\[1\]\.name: given 'b' twice"),
        ("source_images.sources", [TABLE | {"name": "a/b"}], r"source_images\.sources\[0\]\.name: given 'a/b'"),
        ("source_images.sources", [TABLE | {"labels": "b"}], r"source_images\.sources\[0\]\.name: missing"),
        ("source_images.sources", [{"kind": "folder"}], r"source_images\.sources\[0\]\.kind.*'folder'.*'emoji', 'image_folder'"),
    ],
)
def test_an_unknown_variant_is_named_with_the_known_ones(tmp_path, setting, value, message):
    with pytest.raises(UserError, match=message):
        read_params(edited(tmp_path, setting, value))


def test_every_wrong_setting_is_named_at_once(tmp_path):
    written = demo_settings()
    written["report"]["queries"] = 0
    written["text_tower"]["batch"] = 8
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)2 wrong settings.*(report\.queries.*text_tower\.batch|text_tower\.batch.*report\.queries)"):
        read_params(path)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "a: [1\n", "just words"])
def test_a_file_that_is_not_a_mapping_is_named(tmp_path, content):
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


def test_the_command_names_a_wrong_setting_without_a_traceback(checkout, tmp_path):
    edited(tmp_path, "image_tower.epohcs", 3)
    for asked in ("--check", "report"):
        done = command("-m", "assets", asked, cwd=tmp_path, checkout=checkout)
        assert done.returncode == 1
        assert "image_tower.epohcs: no such setting" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_command_lists_the_stages_where_one_is_unknown(checkout):
    done = command("-m", "assets", "evaluation@clip", cwd=checkout, checkout=checkout)
    assert done.returncode == 1
    assert "evaluation@base" in done.stderr
    assert "Traceback" not in done.stderr


def test_checking_settings_imports_nothing_heavy(checkout):
    script = (
        "import sys; from assets.__main__ import main; assert main(['--check']) == 0; "
        "print(*sorted({'torch', 'lancedb', 'great_expectations', 'matplotlib', 'open_clip', 'faiss'} & sys.modules.keys()))"
    )
    done = command("-c", script, cwd=checkout, checkout=checkout)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
