"""A model for benchmarks: the published recipe's where the pipeline has run, else the demo's two packaged towers."""

from __future__ import annotations

import shutil
from pathlib import Path

from assets import artifacts
from assets.base_clip.demo import _join_towers, _write_parts
from assets.clip.model import save_weights
from assets.params import read_params


def model_at_hand(folder: Path) -> tuple[Path, str]:
    """(a model directory below `folder`, what it is). The packaged towers were never aligned: their speed is true, their recall is not."""
    recipe = read_params()[0].promotion.recipe
    target = folder / "model"
    if artifacts.model_dir(recipe).is_dir():
        shutil.copytree(artifacts.model_dir(recipe).resolve(), target)
        return target, f"the trained {recipe}"
    _write_parts(64, target)
    save_weights(_join_towers(target), target)
    card = {"recipe": "base", "stage": "base_clip", "made_from": [], "params": {}, "inputs": {}}
    artifacts.write_json(target / artifacts.MODEL_CARD, card)
    return target, "the packaged towers, not aligned"
