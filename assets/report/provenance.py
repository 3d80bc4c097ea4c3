"""What a report was made from: files by dvc's own hashes, models by the hash that the champion is known by, and their settings.

No date and no commit: the same inputs give the same report whatever else the checkout holds. The commit is the one that dvc.lock is in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets import artifacts

CHAIN = {  # the models that a recipe is made of, in order
    "base": ("base",),
    "gpr": ("base", "gpr"),
    "gpr_rea": ("base", "gpr", "gpr_rea"),
    "mcip": ("base", "mcip"),
    "mcip_rea": ("base", "mcip", "mcip_rea"),
}
SECTIONS = {"base": "base_clip", "gpr": "image_tower", "mcip": "image_tower", "gpr_rea": "text_tower", "mcip_rea": "text_tower"}


def dvc_md5(path: Path) -> str:
    """The hash that dvc.lock has for a file, or for a folder: the MD5 of the JSON list of its files' hashes, with `.dir` after it."""
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest()
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listed = [{"md5": dvc_md5(files[name]), "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def model_cards(recipe: str) -> list[Path]:
    """The cards of the models that the recipe's is made of, in order."""
    return [artifacts.model_dir(model) / "model_card.json" for model in CHAIN[recipe]]


def evaluation_settings(recipe: str) -> Path:
    """What the recipe was measured with."""
    return artifacts.evaluation_dir(recipe) / "settings.json"


def recipe_settings(recipe: str) -> dict[str, Any]:
    """Every setting that the recipe's model was trained and measured with: {"image_tower.lr": …, "evaluation.knn_k": …}.

    From the cards of the models that it is made of, and what its evaluation wrote.
    """
    found: dict[str, Any] = {}
    for model, card in zip(CHAIN[recipe], model_cards(recipe), strict=True):
        found |= flat(artifacts.read_json(card)["params"], SECTIONS[model])
    return found | flat(artifacts.read_json(evaluation_settings(recipe)), "evaluation")


def flat(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"prefix.a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}.{key}") if isinstance(value, Mapping) else {f"{prefix}.{key}": value}
    return found


def settings_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings that differ, in the order of `after`; None where one side has no such setting."""
    keys = [*after, *(key for key in before if key not in after)]
    return [
        {"setting": key, "before": before.get(key), "after": after.get(key)}
        for key in keys
        if (key in before, before.get(key)) != (key in after, after.get(key))
    ]
