"""What a recipe that is no longer in params.yaml left behind: dvc forgets such outputs, and would list them as part of a folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from assets import artifacts

logger = logging.getLogger(__name__)


def remove_leftovers(recipes: Collection[str]) -> None:
    """Remove models, histories, captions and evaluations of recipes that are not among `recipes`. dvc's cache still has them.

    Removed is only what a stage has made: it names its recipe itself, in its card or its metrics.
    """
    for left in [*_made(artifacts.MODELS, artifacts.MODEL_CARD), *_made(artifacts.EVALUATION, "metrics.json")]:
        if left.name not in recipes:
            _remove(left)
    for history in sorted(artifacts.HISTORY.glob("*.json")):
        if history.stem not in recipes and _named(history) == history.stem:
            _remove(history)
    for captions in sorted(artifacts.TRAINING_CAPTIONS.glob("*")):
        if captions.name not in recipes and (captions / "captions.parquet").is_file():
            _remove(captions)


def _made(folder: Path, card: str) -> list[Path]:
    """The folders below `folder` whose file `card` names them."""
    return [each for each in sorted(folder.glob("*")) if each.is_dir() and _named(each / card) == each.name]


def _named(file: Path) -> str | None:
    try:
        told = artifacts.read_json(file)
    except (OSError, ValueError):
        return None
    return told.get("recipe") if isinstance(told, dict) else None


def _remove(path: Path) -> None:
    logger.info("%s is of a recipe that is no longer in params.yaml: removed (`dvc checkout` brings it back with the recipe)", path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
