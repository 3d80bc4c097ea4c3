"""Average precision, precision and recall at k, of one query and on average. Ranks come from ranking.py.

A measure of one query takes its ranks [R]. A measure of many queries takes the vectors and masks of `mean_average_precision`: the plural
gives one value per query [Q], nan where it has no relevant item; the mean skips those. The caller chooses whether the query itself is in
the ranking: `exclude_self` takes it out; without it, it ranks first and counts as found (the protocol of GPR1200, arXiv 2111.13122).

Shapes: Q queries, G gallery items, R relevant items of one query.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from assets.metrics.ranking import relevant_ranks
from assets.metrics.similarity import Mask, Vectors


def mean_average_precision(query: Vectors, gallery: Vectors, relevant: Mask, exclude: Mask | None = None) -> float:
    """mAP, a fraction: the mean of `average_precisions` over the queries that have a relevant item.

    query [Q, d], gallery [G, d], arrays or tensors: similarity is the dot product in fp32 or better (float64 for float64 vectors).
    relevant, exclude: boolean [Q, G], or a function (start, stop) → boolean [stop − start, G]; excluded items are not in the ranking.
    Ties are ranked by gallery index, the lower first. Queries without a relevant item that is not excluded are skipped; where that
    is all of them the mean does not exist: ValueError.
    """
    return _mean(average_precisions(query, gallery, relevant, exclude))


def average_precisions(query: Vectors, gallery: Vectors, relevant: Mask, exclude: Mask | None = None) -> np.ndarray:
    """AP of each query, float64 [Q], fractions; nan for a query without a relevant item. Arguments as of `mean_average_precision`."""
    return _of_each_query(average_precision, query, gallery, relevant, exclude)


def average_precision(ranks: np.ndarray) -> float:
    """AP = (1/R) Σ_i i / rank_i over the ascending 1-based ranks [R] of all relevant items; nan where there are none.

    The precision at each relevant item, averaged: no interpolation, no cut-off.
    """
    return float(np.sum(np.arange(1, len(ranks) + 1) / ranks)) / len(ranks) if len(ranks) else float("nan")


def trapezoidal_average_precision(ranks: np.ndarray) -> float:
    """AP = (1/R) Σ_i (p_i + q_i) / 2 over the ascending 1-based ranks [R]: the area under the precision–recall curve, by trapezoids.

    q_i = i / rank_i is the precision at the i-th relevant item, p_i = (i − 1) / (rank_i − 1) that just before it, 1 at rank 1. The AP of
    the Oxford buildings (Philbin et al. 2007) and of Radenović et al. 2018 (arXiv 1803.11285; compute_ap of the authors' code). At most
    `average_precision`, equal where nothing wrong stands before the last relevant item; nan without a relevant item.
    """
    if not len(ranks):
        return float("nan")
    earlier = np.arange(len(ranks))
    before = np.where(ranks == 1, 1.0, earlier / np.maximum(ranks - 1, 1))
    return float(np.mean((before + (earlier + 1) / ranks) / 2))


def precision_at_k(ranks: np.ndarray, k: int) -> float:
    """The share of relevant items among the first k' = min(k, the last relevant item's rank); nan without a relevant item.

    Looking no further than the last relevant item lets a query with fewer than k of them reach 1 (Radenović et al. 2018, arXiv
    1803.11285, compute_map of the authors' code). Plain P@k divides by k. ranks [R]: ascending, 1-based, of all relevant items.
    """
    _check_k(k)
    if not len(ranks):
        return float("nan")
    depth = min(k, int(ranks[-1]))
    return np.count_nonzero(ranks <= depth) / depth


def recall_at_k(query: Vectors, gallery: Vectors, relevant: Mask, k: int, exclude: Mask | None = None) -> float:
    """R@k, a fraction: the share of queries with at least one relevant item among the k most similar.

    That is how image–text retrieval uses the word, also where a query has several relevant items. Other arguments, ties and skipped
    queries as in `mean_average_precision`; a k beyond the gallery is the whole gallery.
    """
    return _mean(hits_at_k(query, gallery, relevant, k, exclude))


def hits_at_k(query: Vectors, gallery: Vectors, relevant: Mask, k: int, exclude: Mask | None = None) -> np.ndarray:
    """1.0 for each query with a relevant item among the k most similar, else 0.0: float64 [Q]; nan where it has no relevant item."""
    _check_k(k)
    return _of_each_query(lambda ranks: float(ranks[0] <= k) if len(ranks) else float("nan"), query, gallery, relevant, exclude)


def _of_each_query(
    measure: Callable[[np.ndarray], float], query: Vectors, gallery: Vectors, relevant: Mask, exclude: Mask | None
) -> np.ndarray:
    return np.fromiter((measure(ranks) for ranks in relevant_ranks(query, gallery, relevant, exclude)), np.float64, len(query))


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, given {k}")


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        raise ValueError(f"none of the {len(values)} queries has a relevant item in the gallery, so there is nothing to average")
    return float(known.mean())
