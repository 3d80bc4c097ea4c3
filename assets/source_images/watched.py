"""Which paths of the sources dvc watches, and whether dvc.yaml lists them all. What changes at an address goes unnoticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets import artifacts
from assets.errors import UserError
from assets.source_images.addresses import is_remote

PIPELINE = Path("dvc.yaml")
SETTINGS = "${source_images."  # how a dependency of dvc.yaml begins that params.yaml gives


def watched(sources: Sequence[Any]) -> dict[str, str]:
    """Each path that the sources name → how dvc.yaml refers to it."""
    found: dict[str, str] = {}
    for number, source in enumerate(sources):
        for key in ("root", "pictures"):
            path = getattr(source, key, None)
            if path is not None and not is_remote(path):
                found.setdefault(path, f"{SETTINGS}sources[{number}].{key}}}")
    return found


def check_watched(sources: Sequence[Any]) -> None:
    """UserError where dvc.yaml watches other paths, so that changes would go unnoticed."""
    if not PIPELINE.is_file():
        return
    listed = artifacts.read_yaml(PIPELINE)["stages"]["source_images"]["deps"]
    given = [each for each in listed if each.startswith(SETTINGS)]
    if sorted(given) != sorted(watched(sources).values()):
        raise UserError(
            f"{PIPELINE} watches {', '.join(given) or 'no source'}, and params.yaml names {', '.join(watched(sources)) or 'no path'}."
            " `make code` writes into it what the sources name; then run again."
        )
