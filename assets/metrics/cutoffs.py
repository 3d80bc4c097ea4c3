"""From which similarity on a hit is called right: arithmetic on the cosines of pairs that belong together and of pairs that do not.

Shapes: R right pairs, W wrong pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Cutoff(NamedTuple):
    """Pairs with at least `cosine` are called right; precision and recall are fractions of pairs."""

    cosine: float
    precision: float
    recall: float


def best_cutoff(right: np.ndarray, wrong: np.ndarray) -> Cutoff:
    """The cosine at which calling pairs right is best: highest F1 over the cosines of right [R] and wrong [W]; of equals the highest.

    ValueError where there is no right pair.
    """
    if not len(right):
        raise ValueError("there is no right pair, so there is no cutoff to find")
    cosines = np.concatenate([right, wrong])
    order = np.argsort(-cosines, kind="stable")
    hits = np.cumsum(order < len(right))
    ends = np.flatnonzero(np.diff(cosines[order], append=-np.inf))  # where pairs with equal cosines are all counted
    called, found = ends + 1, hits[ends]
    best = int(np.argmax(2 * found / (called + len(right))))
    return Cutoff(float(cosines[order][ends[best]]), float(found[best] / called[best]), float(found[best] / len(right)))


def exceeded_by(wrong: np.ndarray, share: float) -> float:
    """The cosine that this share of the wrong pairs [W] exceeds."""
    return float(np.quantile(wrong, 1 - share))
