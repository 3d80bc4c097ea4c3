"""Four rows of a run, for the commands that show them."""

from __future__ import annotations

from assets.measures import COLUMNS


def row(recipe: str, value: float, difference: float, outcome: str) -> dict:
    values = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
    values |= {"text_to_image": {"recall_at_5": value, "caption_recall_at_5": None}, "average": value}
    against = {measure.key: {"difference": difference, "interval": [0, 0], "outcome": outcome} for measure in COLUMNS}
    apart = {"classes": 400, "images": 2500, **values, "against_base": against}
    return {"recipe": recipe, **values, "confidence": {"level": 0.95, "against_base": against}, "without_siblings": apart}


ROWS = [
    row("base", 31.25, 0, "tie"),
    row("gpr", 42.96, 11.71, "better"),
    row("mcip", 30.0, -1.25, "tie"),
    row("mcip_rea", 20, -11.25, "worse"),
]
DIFFERENCES = {measure.key: {"difference": -10.0, "interval": [-12.0, -8.0], "outcome": "worse"} for measure in COLUMNS}
DIFFERENCES["knn.accuracy"] = {"difference": 0.3, "interval": [-1.0, 1.6], "outcome": "tie"}
PAIRS = [{"recipe": "mcip_rea", "against": "mcip", "differences": DIFFERENCES, "without_siblings": DIFFERENCES}]
METRICS = {"rows": ROWS, "pairs": PAIRS, "counts": {"images": 4662, "classes": 769, "captions": 2000}, "groups": []}
