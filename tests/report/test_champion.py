"""The champion: what it keeps, and how later recipes are compared with it."""

from __future__ import annotations

from assets import artifacts
from assets.commands.promote import promote
from assets.report.stage import make_report


def test_from_one_report_to_the_next(inputs, settings, promotion):
    # captions are asked for and there are none: nobody can judge that, so a person says why it is published all the same
    inputs(captions=False)
    few = settings.model_copy(update={"queries": 1, "worst_failures": 1})
    asked = {"must_not_fall": {"caption_to_image": 0.0}, "override_reason": "there are no captions"}
    make_report(few, promotion.model_copy(update=asked), "gpr")
    assert "caption→image R@5 cannot be judged, and promotion names it." in artifacts.read_json(artifacts.VERDICT)["reasons"]
    assert promote()["override_reason"] == "there are no captions"

    # the next ones are compared with it on the same images: the realigned one has the same image tower and another text tower
    make_report(few, promotion.model_copy(update={"against": "champion", "must_rise": {"image_to_image": 0.0}}), "gpr_rea")
    verdict = artifacts.read_json(artifacts.VERDICT)
    assert (verdict["against"], verdict["decision"]) == ("champion", "hold")
    assert "paired" in verdict["reasons"][1]
    found = verdict["families"]["image_to_image"]
    assert (found["difference"], found["interval"], found["outcome"]) == (0, [0, 0], "tie")
    assert verdict["must_rise"]["image_to_image"]["rose"] is False
