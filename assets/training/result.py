"""What a training stage leaves: the kept model's directory with its card, the history; and no state to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assets import artifacts
from assets.clip.model import Clip, save_tuned
from assets.recipes import Recipe
from assets.training.distributed import rank
from assets.training.selection import Kept, Rows
from assets.training.state import forget_state


def write_result(
    model: Clip,
    recipe: Recipe,
    *,
    like: Path,
    determined_by: dict[str, Any],
    history: Rows,
    kept: Kept,
    state_dir: Path,
) -> None:
    """Write models/<recipe>, a tuned copy of the model directory `like`, and history/<recipe>.json; then forget `state_dir`.

    The card holds how the model was made, from the first model on, and what was kept with its validation measures. In several
    processes the first one writes.
    """
    if rank() > 0:
        return
    card = {
        "recipe": recipe.name,
        "stage": recipe.stage,
        "made_from": _made_from(like),
        **determined_by,
        "kept": kept.as_json(),
    }
    save_tuned(model, like, artifacts.model_dir(recipe.name), card)
    artifacts.write_json(artifacts.history_file(recipe.name), {"recipe": recipe.name, "rows": history, "kept": kept.as_json()})
    forget_state(state_dir)


def _made_from(start: Path) -> list[dict[str, Any]]:
    """How the model in `start` came to be: {recipe, stage, params} of each model on the way, the first one first."""
    card = artifacts.read_json(start / artifacts.MODEL_CARD)
    return [*card["made_from"], {name: card[name] for name in ("recipe", "stage", "params")}]
