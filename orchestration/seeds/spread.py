"""What several seeds score: mean and t-interval of every measure, and of its difference to base. It takes rows and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from assets.measures import SHOWN, value_of
from assets.recipes import BASE


def t_interval(values: Sequence[float], level: float) -> tuple[float, float, float, float]:
    """(mean, standard deviation with n − 1, low, high): mean ∓ t((1 + level) / 2, n − 1) · sd / √n. ValueError below two values."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, given {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(student_t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean, deviation, mean - half, mean + half


def aggregate(
    rows: Mapping[int, Mapping[str, Mapping[str, Any]]], pairs: Sequence[Sequence[str]], asked: int, level: float
) -> dict[str, Any]:
    """What seeds.json holds, from the rows of metrics by seed and recipe: percent, and points of difference to base and within `pairs`.

    Recipes keep the order of the rows. A measure that some seed could not take is null. A difference `holds` where it has the same sign in
    every seed; its outcome is better or worse where it holds and its interval leaves 0 out, else a tie.
    """
    seeds = sorted(rows)

    def values_of(recipe: str, key: str) -> list[float] | None:
        values = [value_of(rows[seed][recipe], key) for seed in seeds]
        known = [value for value in values if value is not None]
        return known if len(known) == len(seeds) else None

    def difference(recipe: str, against: str, key: str) -> dict[str, Any] | None:
        values, reference = values_of(recipe, key), values_of(against, key)
        if values is None or reference is None:
            return None
        differences = [value - other for value, other in zip(values, reference, strict=True)]
        return _spread(differences, level) | _judged(differences, level)

    recipes = []
    for recipe in rows[seeds[0]]:
        measures: dict[str, Any] = {}
        for measure in SHOWN:
            values = values_of(recipe, measure.key)
            measures[measure.key] = _spread(values, level) if values is not None else None
            if values is not None and recipe != BASE and (against := difference(recipe, BASE, measure.key)):
                measures[measure.key]["against_base"] = against
        recipes.append({"recipe": recipe, "measures": measures})
    compared = [
        {"recipe": recipe, "against": against, "differences": {each.key: difference(recipe, against, each.key) for each in SHOWN}}
        for recipe, against in pairs
    ]
    missing = [seed for seed in range(asked) if seed not in rows]
    return {"seeds": seeds, "missing": missing, "level": level, "rows": recipes, "pairs": compared}


def _spread(values: Sequence[float], level: float) -> dict[str, Any]:
    mean, deviation, low, high = t_interval(values, level)
    return {
        "values": [round(value, 4) for value in values],
        "mean": round(mean, 4),
        "sd": round(deviation, 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def _judged(differences: Sequence[float], level: float) -> dict[str, Any]:
    _, _, low, high = t_interval(differences, level)
    rose, fell = all(each > 0 for each in differences), all(each < 0 for each in differences)
    outcome = "better" if rose and low > 0 else "worse" if fell and high < 0 else "tie"
    return {"holds": rose or fell, "outcome": outcome}
