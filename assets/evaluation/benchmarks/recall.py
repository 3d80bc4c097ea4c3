"""Ranks to percent, as several benchmarks report them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from assets.errors import UserError


def percent(fractions: np.ndarray) -> float:
    """The mean in percent, nan values (queries without a relevant item) left out."""
    known = fractions[~np.isnan(fractions)]
    if not len(known):
        raise UserError("no query has anything relevant to find.")
    return round(100 * float(known.mean()), 4)


def recalls(ranks: Iterable[np.ndarray], ks: Sequence[int]) -> dict[str, float]:
    """`recall_at_<k>`: the percentage of queries whose first relevant item ranks at most k, from the ranks of `relevant_ranks`."""
    first = np.array([own[0] if len(own) else np.nan for own in ranks], np.float64)
    return {f"recall_at_{k}": percent(np.where(np.isnan(first), np.nan, first <= k)) for k in ks}
