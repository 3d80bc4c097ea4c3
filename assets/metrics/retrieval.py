"""Average precision and recall at k, a query at a time and on average. Ranks come from ranking.py.

Shapes: Q queries, G gallery items, R relevant items of one query.
"""

from __future__ import annotations

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
    return np.array([average_precision(ranks) for ranks in relevant_ranks(query, gallery, relevant, exclude)], np.float64)


def average_precision(ranks: np.ndarray) -> float:
    """AP = (1/R) Σ_i i / rank_i over the ascending 1-based ranks [R] of all relevant items; nan where there are none.

    The precision at each relevant item, averaged: no interpolation, no cut-off.
    """
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else float("nan")


def recall_at_k(query: Vectors, gallery: Vectors, relevant: Mask, k: int, exclude: Mask | None = None) -> float:
    """R@k, a fraction: the share of queries with at least one relevant item among the k most similar.

    That is how image–text retrieval uses the word, also where a query has several relevant items. Other arguments, ties and skipped
    queries as in `mean_average_precision`; a k beyond the gallery is the whole gallery.
    """
    return _mean(hits_at_k(query, gallery, relevant, k, exclude))


def hits_at_k(query: Vectors, gallery: Vectors, relevant: Mask, k: int, exclude: Mask | None = None) -> np.ndarray:
    """1.0 for each query with a relevant item among the k most similar, else 0.0: float64 [Q]; nan where it has no relevant item."""
    if k < 1:
        raise ValueError(f"k must be at least 1, given {k}")
    found = relevant_ranks(query, gallery, relevant, exclude)
    return np.array([float(ranks[0] <= k) if len(ranks) else np.nan for ranks in found], np.float64)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        raise ValueError(f"none of the {len(values)} queries has a relevant item in the gallery, so there is nothing to average")
    return float(known.mean())
