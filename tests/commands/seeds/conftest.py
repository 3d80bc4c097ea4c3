"""A small pipeline with stand-ins for the stages, in a checkout of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from assets.artifacts import RECIPES
from assets.commands.seeds import copies

STAND_IN = """
import json, os, pathlib, sys, yaml
stage = sys.argv[1]
seed = yaml.safe_load(pathlib.Path("params.yaml").read_text())[stage].get("seed")
if stage == "evaluation":
    import assets.evaluation
    assert seed != 1 or not pathlib.Path(os.environ["SEED_1_FAILS"]).exists(), "seed 1 is not liked"
    for number, recipe in enumerate(("base", "gpr", "gpr_rea", "mcip", "mcip_rea")):
        value = 10.0 * seed + number
        row = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
        row |= {"text_to_image": {"recall_at_5": value, "caption_recall_at_5": None}, "average": value}
        folder = pathlib.Path("data/evaluation") / recipe
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(row))
else:
    pathlib.Path(f"data/{stage}").mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"data/{stage}/images.parquet").write_text(str(seed))
if stage == "curated_images":  # somebody edits the checkout meanwhile
    pathlib.Path("../../../assets/evaluation/__init__.py").write_text("raise RuntimeError('half written')")
"""
SOURCE, CURATED = "data/source_images/images.parquet", "data/curated_images/images.parquet"
EVALUATED = [f"data/evaluation/{recipe}/metrics.json" for recipe in RECIPES]
PIPELINE = {
    "source_images": {"deps": ["assets/source_images", "${source_images.image_folder.root}"], "outs": [SOURCE]},
    "curated_images": {"deps": ["assets/curated_images", SOURCE], "outs": [CURATED]},
    "evaluation": {"deps": ["assets/evaluation", CURATED], "metrics": EVALUATED},
    "report": {"deps": ["assets/report", *EVALUATED]},
}


@pytest.fixture
def standing_in(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with our params.yaml and stages that write files that tell their seed."""
    folder = tmp_path / "a checkout"
    for name in ("params.yaml", ".dvcignore", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((checkout / name).read_bytes())
    for stage in PIPELINE:
        (folder / "assets" / stage).mkdir(parents=True)
        (folder / "assets" / stage / "__init__.py").touch()
    stages = {name: {"cmd": f"python -m assets {name}", "params": [name], **stage} for name, stage in PIPELINE.items()}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "data/images").mkdir(parents=True)
    (folder / "assets/__init__.py").touch()
    (folder / "assets/__main__.py").write_text(STAND_IN)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(copies, "REPEATED", ("curated_images", "evaluation"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("SEED_1_FAILS", str(tmp_path / "fails"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder
