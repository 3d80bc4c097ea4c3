"""Measures of a ranking of which people have judged some hits, and not the others. An unjudged hit counts neither as right nor as wrong.

Both are means over queries, of those that have one: precision, the share of right ones among the judged hits; and agreement, of all pairs
of a right and a wrong hit of one query the share in which the right one comes first (0.5 is chance), as in bpref (Buckley & Voorhees,
SIGIR 2004).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def precision(hits: Sequence[bool | None]) -> float | None:
    """`hits`: right, wrong or unjudged, nearest first. None where none is judged."""
    judged = [hit for hit in hits if hit is not None]
    return sum(judged) / len(judged) if judged else None


def agreement(ranked: Sequence[bool]) -> float | None:
    """`ranked`: the judged hits alone, nearest first. None without a pair."""
    right = np.asarray(ranked, bool)
    pairs = int(right.sum()) * int((~right).sum())
    return float((np.cumsum(right)[~right]).sum() / pairs) if pairs else None


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None of none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
