"""The sentence that the page begins with."""

from __future__ import annotations

from typing import Any

import pytest

from assets.report.decision import headline


def verdict(outcomes: dict[str, str], decision: str = "publish", **more: Any) -> dict[str, Any]:
    families = {family: {"outcome": outcome} for family, outcome in outcomes.items()}
    return {"recipe": "mcip_rea", "families": families, "decision": decision, "unjudged": {}, "override_reason": None} | more


def outcomes(image: str, knn: str, zero_shot: str, text: str) -> dict[str, str]:
    return {"image_to_image": image, "knn": knn, "zero_shot": zero_shot, "text_to_image": text}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (verdict(outcomes("better", "better", "better", "better")), "better than base on 4 of 4 families: publish"),
        (verdict(outcomes("better", "better", "tie", "better")), "better than base on 3 of 4 families, a tie on zero-shot: publish"),
        (verdict(outcomes("tie", "tie", "tie", "tie")), "level with base on all 4 families: publish"),
        (
            verdict(outcomes("better", "tie", "worse", "tie"), "hold"),
            "better than base on 1 of 4 families, a tie on k-NN and text→image, worse on zero-shot: hold",
        ),
        (
            verdict(outcomes("worse", "worse", "worse", "worse"), override_reason="because"),
            "worse than base on image→image, k-NN, zero-shot and text→image: publish, overriding the gate",
        ),
        (
            verdict({"image_to_image": "better"}, "hold", unjudged={"caption_to_image": "not measured"}),
            "better than base on 1 of 1 families, not judged on caption→image: hold",
        ),
    ],
)
def test_the_decision_is_one_sentence(found, sentence):
    assert headline(found, "base") == f"mcip_rea is {sentence}"
