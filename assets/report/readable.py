"""Part «The words» of section «Data»: whether the base reads the class names and captions, as its model card says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assets import artifacts
from assets.measures import percent
from assets.recipes import BASE


def read_readable() -> Sequence[Mapping[str, Any]]:
    """What base_clip found: one entry each for the class names and the captions."""
    found: list[dict[str, Any]] = artifacts.read_json(artifacts.model_dir(BASE) / artifacts.MODEL_CARD)["readable"]
    return found


def readable_view(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "readable": [
            {"what": each["what"], "texts": each["texts"], "unknown": percent(100 * each["unknown_tokens"]), "said": each["said"]}
            for each in found
        ]
    }
