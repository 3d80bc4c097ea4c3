"""What a training stage leaves: the best epoch's model directory with its card, the history; and no state to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assets import artifacts
from assets.clip.model import Clip, save_tuned
from assets.training.distributed import rank
from assets.training.loop import best_measures
from assets.training.state import forget_state


def write_result(
    model: Clip, *, recipe: str, like: Path, determined_by: dict[str, Any], history: list[dict[str, Any]], select_by: str, state_dir: Path
) -> None:
    """Write models/<recipe>, a tuned copy of the model directory `like`, and history/<recipe>.json; then forget `state_dir`.

    The card holds what determined the run and the validation measures of the epoch that was kept. In several processes the first writes.
    """
    if rank() > 0:
        return
    card = {"recipe": recipe, **determined_by, "validation": best_measures(history, select_by)}
    save_tuned(model, like, artifacts.model_dir(recipe), card)
    artifacts.write_json(artifacts.history_file(recipe), {"recipe": recipe, "rows": history})
    forget_state(state_dir)
