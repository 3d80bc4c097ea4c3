"""How a copy of the checkout is made for each seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from assets import artifacts
from assets.commands.seeds import copies
from assets.params import read_params
from assets.stages import STAGES


def test_what_is_repeated_is_every_stage_between_the_source_and_the_report():
    assert tuple(stage.name for stage in STAGES if stage.name not in (copies.READ_ONCE, "report", "search_table")) == copies.REPEATED


def test_seed_0_is_params_yaml_and_others_are_added(checkout):
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    written["image_tower"]["seed"] = 7
    assert copies.offset(written, 0) == written
    moved = copies.offset(written, 2)
    assert moved["image_tower"]["seed"] == 9
    changed = {name for name in written if moved[name] != written[name]}
    assert changed == {name for name in copies.REPEATED if "seed" in written[name]}
    assert "report" not in changed


def test_data_from_outside_is_what_no_repeated_stage_makes(checkout):
    pipeline, written = (yaml.safe_load((checkout / name).read_text(encoding="utf-8")) for name in ("dvc.yaml", "params.yaml"))
    repeated = [(stage, recipe) for stage in STAGES if stage.name in copies.REPEATED for recipe in stage.recipes]
    params, _ = read_params(checkout / "params.yaml")
    read = {path for stage, recipe in repeated for path in stage.inputs(recipe, params)}
    made = {path for stage, recipe in repeated for path in stage.outputs(recipe)}
    assert set(copies.given_inputs(pipeline, written)) == read - made
    assert artifacts.SOURCE_IMAGES in read - made
    pipeline["stages"]["evaluation"]["deps"].append("${source_images.image_folder.root}/benchmarks")
    assert Path("data/images/benchmarks") in copies.given_inputs(pipeline, written)


def prepared(written: dict) -> tuple[Path, dict]:
    workspace = artifacts.SEED_RUNS / "1"
    copies.prepare(workspace, 1, artifacts.read_yaml(copies.PIPELINE), written, "cache")
    return workspace, yaml.safe_load((workspace / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def with_benchmarks(standing_in: Path) -> dict:
    """The settings of a checkout whose evaluation depends on benchmarks, as ours does, with a picture of one."""
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    pipeline["stages"]["evaluation"]["deps"].append("${evaluation.benchmarks_root}")
    Path("dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for path in (artifacts.SOURCE_IMAGES, Path("data/benchmarks/gpr1200/1.jpg")):
        path.parent.mkdir(parents=True)
        path.touch()
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("root", ["data/benchmarks", "/data/benchmarks", "../benchmarks"])
def test_seeds_measure_no_benchmarks(with_benchmarks, root):
    with_benchmarks["evaluation"]["benchmarks_root"] = root
    workspace, found = prepared(with_benchmarks)
    assert (workspace / artifacts.SOURCE_IMAGES).is_file()
    assert found["evaluation"]["benchmarks_root"] == "data/benchmarks"
    assert [path.name for path in (workspace / "data/benchmarks").iterdir()] == [".gitkeep"]


def test_files_that_dvc_does_not_watch_are_found_from_a_copy(with_benchmarks):
    for name in ("captions.txt", "model.pt"):
        Path(name).touch()
    with_benchmarks["pseudo_captions"]["extra_corpora"] = ["captions.txt", "not there.txt"]
    with_benchmarks["base_clip"] = {"seed": 0, "source": "open_clip", "model": "ViT-B-32", "pretrained": "model.pt"}
    _, found = prepared(with_benchmarks)
    assert found["pseudo_captions"]["extra_corpora"] == [str(Path("captions.txt").resolve()), "not there.txt"]
    assert found["base_clip"]["pretrained"] == str(Path("model.pt").resolve())
    with_benchmarks["base_clip"]["pretrained"] = "openai"
    Path("openai").mkdir()
    assert prepared(with_benchmarks)[1]["base_clip"]["pretrained"] == "openai"
