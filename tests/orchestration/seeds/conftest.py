"""A small pipeline with stand-ins for the stages, in a checkout of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.settings import demo_text

STAND_IN = """
import json, os, pathlib, sys, yaml
stage, _, recipe = sys.argv[1].partition("@")
seed = yaml.safe_load(pathlib.Path("params.yaml").read_text())[stage].get("seed")
if stage == "evaluation":
    import assets.evaluation
    assert recipe != "mcip" or seed != 1 or not pathlib.Path(os.environ["SEED_1_FAILS"]).exists(), "seed 1 is not liked"
    value = 10.0 * seed + ("base", "base_rea", "gpr", "gpr_rea", "mcip", "mcip_rea", "onespace").index(recipe)
    row = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
    row |= {"text_to_image": {"recall_at_5": value, "caption_recall_at_5": None}, "average": value}
    folder = pathlib.Path("data/evaluation") / recipe
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(row))
else:
    pathlib.Path(f"data/{stage}").mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"data/{stage}/images").write_text(str(seed))
if stage == "curated_images":  # somebody edits the checkout meanwhile
    pathlib.Path("../../../assets/evaluation/__init__.py").write_text("raise RuntimeError('half written')")
"""
PIPELINE = """
stages:
  source_images:
    cmd: python -m assets source_images
    params: [source_images]
    deps: [assets/source_images, data/images]
    outs: [data/source_images/images]
  curated_images:
    cmd: python -m assets curated_images
    params: [curated_images]
    deps: [assets/curated_images, data/source_images/images]
    outs: [data/curated_images/images]
  evaluation:
    foreach: ${recipes.measured}
    do:
      cmd: python -m assets evaluation@${item}
      params: [evaluation]
      deps:
        - assets/evaluation
        - data/curated_images/images
        - ${evaluation.benchmarks_root}
      metrics:
        - data/evaluation/${item}/metrics.json
  report:
    cmd: python -m assets report
    params: [report]
    deps: [assets/report, data/evaluation]
    outs: [data/report/images]
"""


@pytest.fixture
def standing_in(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with our params.yaml and stages that write their seed into files."""
    folder = tmp_path / "a checkout"
    for name in ("params.yaml", ".dvcignore", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((checkout / name).read_bytes())
    (folder / "params.yaml").write_text(demo_text(), encoding="utf-8")
    for stage in yaml.safe_load(PIPELINE)["stages"]:
        (folder / "assets" / stage).mkdir(parents=True)
        (folder / "assets" / stage / "__init__.py").touch()
    (folder / "dvc.yaml").write_text(PIPELINE)
    for name in ("data/images", "data/benchmarks"):
        (folder / name).mkdir(parents=True)
    (folder / "assets/__init__.py").touch()
    (folder / "assets/__main__.py").write_text(STAND_IN)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("SEED_1_FAILS", str(tmp_path / "fails"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder
