"""How a copy of the checkout is made for each seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from assets import artifacts
from assets.params import read_params
from assets.stages import addresses
from orchestration.seeds import copies
from orchestration.stage_assets import read_pipeline
from tests.settings import demo_settings


def test_what_is_repeated_is_every_stage_between_the_source_and_the_verdict(checkout):
    again = copies.repeated(read_pipeline(checkout))
    known = addresses(read_params(checkout / "params.yaml")[0])
    names = list(dict.fromkeys(stage.name for stage, _ in known.values()))
    assert list(again.stages) == [name for name in names[names.index("curated_images") : names.index("promotion")] if name != "champion"]
    assert again.read_once == ("source_images",)
    assert set(again.targets) == {address for address in known if address.startswith("evaluation@")}


def test_data_from_outside_is_what_no_repeated_stage_makes(checkout):
    params, _ = read_params(checkout / "params.yaml")
    again = copies.repeated(read_pipeline(checkout))
    repeated = [(stage, recipe) for stage, recipe in addresses(params).values() if stage.name in again.stages]
    read = {path for stage, recipe in repeated for path in stage.inputs(params, recipe)}
    made = {path for stage, recipe in repeated for path in stage.outputs(params, recipe)}
    assert set(again.inputs) == read - made
    assert artifacts.SOURCE_IMAGES in again.inputs


def test_seed_0_is_params_yaml_and_others_are_added(checkout):
    written = demo_settings()
    written["image_tower"]["seed"] = 7
    written["recipes"]["image_tower"]["wide"] = {"from": "base", "about": "with a seed of its own", "seed": 5}
    repeated = copies.repeated(read_pipeline(checkout)).stages
    assert copies.offset(written, 0, repeated) == written
    moved = copies.offset(written, 2, repeated)
    assert moved["image_tower"]["seed"] == 9
    assert moved["recipes"]["image_tower"]["wide"]["seed"] == 7
    assert moved["recipes"]["text_tower"] == written["recipes"]["text_tower"]
    changed = {name for name in written if moved[name] != written[name]} - {"recipes"}
    assert changed == {name for name in repeated if "seed" in written.get(name, {})}
    assert {"promotion", "report"}.isdisjoint(changed)


def prepared(written: dict) -> tuple[Path, dict]:
    workspace = artifacts.SEED_RUNS / "1"
    Path("params.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    copies.prepare(workspace, 1, copies.repeated(read_pipeline(Path.cwd())), written, "cache")
    return workspace, yaml.safe_load((workspace / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def written(standing_in: Path) -> dict:
    """The settings of a checkout that has its source and a picture of a benchmark."""
    for path in (artifacts.SOURCE_IMAGES, Path("data/benchmarks/gpr1200/1.jpg")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("root", ["data/benchmarks", "/data/benchmarks", "../benchmarks"])
def test_seeds_measure_no_benchmarks(written, root):
    written["evaluation"]["benchmarks_root"] = root
    workspace, found = prepared(written)
    assert (workspace / artifacts.SOURCE_IMAGES).is_file()
    assert found["evaluation"]["benchmarks_root"] == "data/benchmarks"
    assert [path.name for path in (workspace / "data/benchmarks").iterdir()] == [".gitkeep"]


def test_a_copy_has_the_rows_of_params_yaml_and_no_stage_after_the_evaluations(written):
    written["recipes"]["measured"] = ["base", "mcip"]
    workspace, _ = prepared(written)
    assert [stage.address for stage in read_pipeline(workspace)] == ["curated_images", "evaluation@base", "evaluation@mcip"]


def test_files_that_dvc_does_not_watch_are_found_from_a_copy(written):
    for name in ("captions.txt", "model.pt"):
        Path(name).touch()
    written["pseudo_captions"]["extra_corpora"] = ["captions.txt", "not there.txt"]
    written["base_clip"] = {"source": "open_clip", "model": "ViT-B-32", "pretrained": "model.pt", "resize": "own"}
    _, found = prepared(written)
    assert found["pseudo_captions"]["extra_corpora"] == [str(Path("captions.txt").resolve()), "not there.txt"]
    assert found["base_clip"]["pretrained"] == str(Path("model.pt").resolve())
    written["base_clip"]["pretrained"] = "openai"
    Path("openai").mkdir()
    assert prepared(written)[1]["base_clip"]["pretrained"] == "openai"
