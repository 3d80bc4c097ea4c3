"""What a measured model was made with: its recipe's chain and every setting of it, flat, so that two evaluations can be compared.

What the settings mean is the stages' concern.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets import artifacts
from assets.errors import UserError


def read_model_card(directory: Path) -> dict[str, Any]:
    """The card of a model. UserError where it is not there or names no models before it."""
    path = directory / artifacts.MODEL_CARD
    try:
        card: dict[str, Any] = artifacts.read_json(path)
    except FileNotFoundError:
        card = {}
    if missing := [key for key in ("recipe", "stage", "made_from", "params") if key not in card]:
        raise UserError(
            f"{path} is not there or has no {', '.join(missing)}. `dvc checkout` restores the model, `dvc repro` makes it anew."
        )
    return card


def made_with(recipe: str, model_sha256: str, card: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """`recipe`, `model_sha256`, `chain` (the recipes that made the model, base first) and `settings` by dotted name.

    A setting is named `stage.key`, such as image_tower.lr. Where two recipes of the chain have one stage, the last one has these names and
    the earlier one `stage@recipe.key`. `evaluation`: the settings of that section that the numbers depend on.
    """
    chain = [*card["made_from"], card]
    last_of = {model["stage"]: model["recipe"] for model in chain}
    settings: dict[str, Any] = {}
    for model in chain:
        stage, maker = model["stage"], model["recipe"]
        settings |= _flat(model["params"], stage if last_of[stage] == maker else f"{stage}@{maker}")
    names = [model["recipe"] for model in chain]
    return {"recipe": recipe, "model_sha256": model_sha256, "chain": names, "settings": settings | _flat(evaluation, "evaluation")}


def _flat(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"prefix.a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}.{key}") if isinstance(value, Mapping) else {f"{prefix}.{key}": value}
    return found
