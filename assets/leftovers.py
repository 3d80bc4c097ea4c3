"""What a recipe that is no longer in params.yaml left behind: dvc forgets such outputs, and would list them as part of a folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from assets import artifacts
from assets.recipes import CHAMPION

logger = logging.getLogger(__name__)


def remove_leftovers(recipes: Collection[str], measured: Collection[str]) -> None:
    """Remove models, histories and captions of recipes that are not among `recipes`, and evaluations of those that are not `measured`.

    Only what a stage has made is removed: it names its recipe itself, in its card or its metrics. dvc's cache still has it.
    """
    for folder, card, wanted in (
        (artifacts.MODELS, artifacts.MODEL_CARD, recipes),
        (artifacts.EVALUATION, "metrics.json", {*measured, CHAMPION}),
    ):
        for left in _made(folder, card):
            if left.name not in wanted:
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
    logger.info("%s belongs to a recipe that params.yaml no longer has, or no longer measures: removed", path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
