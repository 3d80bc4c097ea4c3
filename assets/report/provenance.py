"""Section «Provenance»: the models and test images by SHA-256, and every setting of the published recipe, beside the champion's.

It holds no date and no commit, so that the same inputs give the same report whatever else the checkout holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from assets import params


def provenance_view(
    made_with: Sequence[Mapping[str, Any]],
    verdict: Mapping[str, Any],
    champion: Mapping[str, Any],
    settings: params.Report,
    promotion: params.Promotion,
) -> dict[str, Any]:
    """`made_with`: made_with.json of every measured recipe."""
    (published,) = [each["settings"] for each in made_with if each["recipe"] == promotion.recipe]
    return {
        "models": [{"recipe": each["recipe"], "sha256": each["model_sha256"]} for each in made_with],
        "test_sha256": verdict["test_sha256"],
        "champion": champion["recipe"],
        "champion_sha256": champion["model_sha256"],
        "made_with": published,
        # an older champion does not say how it was made
        "settings_diff": settings_diff(champion["settings"], published) if champion.get("settings") else None,
        "settings": json.dumps({"report": settings.model_dump(), "promotion": promotion.model_dump()}, indent=2, ensure_ascii=False),
    }


def settings_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings that differ, in the order of `after`; None where one side has no such setting."""
    keys = [*after, *(key for key in before if key not in after)]
    return [
        {"setting": key, "before": before.get(key), "after": after.get(key)}
        for key in keys
        if (key in before, before.get(key)) != (key in after, after.get(key))
    ]
