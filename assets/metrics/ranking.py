"""At which ranks a query's relevant items stand. Retrieval measures are functions of these ranks; they live in retrieval.py.

Shapes: Q queries, G gallery items, R relevant items of one query.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from assets.metrics.similarity import Mask, Vectors, mask_block, similarity_blocks

SMALL_SHARE = 1 / 32  # of the gallery: up to this many items are sorted with their indices
FEW_RELEVANT = 12  # up to this many items of one query are counted; for more, a sort of all values is faster
FEW_TIES = 16  # more tied items of one query are ranked by one stable sort


def relevant_ranks(query: Vectors, gallery: Vectors, relevant: Mask, exclude: Mask | None = None) -> Iterator[np.ndarray]:
    """Yield for each query in turn the ranks of its relevant items: int64 [R], ascending, 1 = most similar; empty where it has none.

    query [Q, d], gallery [G, d]: similarity is the dot product in fp32 or better. relevant, exclude: boolean [Q, G], or a function
    (start, stop) → boolean [stop − start, G]. Excluded items are not in the ranking, relevant or not. Of equally similar items the
    one with the lower gallery index ranks first. Exact; memory is bounded, whatever Q.
    """
    shape = len(query), len(gallery)
    for start, stop, similarities in similarity_blocks(query, gallery, exclude):
        wanted = mask_block(relevant, start, stop, shape, "relevant")
        for row, mask in zip(similarities, wanted, strict=True):
            yield _ranks(row, mask)


def nearest_items(similarities: np.ndarray, k: int) -> np.ndarray:
    """The k most similar of [G], most similar first, ties by index; fewer where the rest is excluded (−inf)."""
    if k < len(similarities):
        least = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
        candidates = np.flatnonzero((similarities >= least) & (similarities > -np.inf))
    else:
        candidates = np.flatnonzero(similarities > -np.inf)
    return candidates[np.argsort(-similarities[candidates], kind="stable")[:k]]


def _ranks(similarities: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Ascending ranks of the relevant items, bool [G], in the descending order of `similarities` [G].

    An argsort of all would do, at twenty times the cost. Which of the three ways is taken changes the time alone.
    """
    items = np.flatnonzero(relevant)
    values = similarities[items]
    items, values = items[values > -np.inf], values[values > -np.inf]
    if not len(items):
        return np.zeros(0, np.int64)
    near = similarities >= values.min()
    if np.count_nonzero(near) <= len(similarities) * SMALL_SHARE:
        return _ranks_near(similarities, relevant, np.flatnonzero(near))
    return _counted_ranks(similarities, items) if len(items) <= FEW_RELEVANT else _looked_up_ranks(similarities, items)


def _ranks_near(similarities: np.ndarray, relevant: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Sort the items that are at least as similar as the last relevant one: few, in a good embedding."""
    order = near[np.argsort(-similarities[near], kind="stable")]
    return np.flatnonzero(relevant[order]) + 1


def _counted_ranks(similarities: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Count what stands before each of few `items`: before it by index what is at least as similar, after it what is more similar."""
    ranks = np.empty(len(items), np.int64)
    before = np.empty(len(similarities), bool)
    for number, item in enumerate(items.tolist()):
        np.greater_equal(similarities[:item], similarities[item], out=before[:item])
        np.greater(similarities[item:], similarities[item], out=before[item:])
        ranks[number] = np.count_nonzero(before) + 1
    ranks.sort()
    return ranks


def _looked_up_ranks(similarities: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Sort all values, several times faster than an argsort, and look the `items` up; only ties need indices."""
    items = items[np.argsort(-similarities[items], kind="stable")]
    values = similarities[items]
    ascending = np.sort(similarities)
    # searching ascending values is several times faster than searching values in any order
    not_above = np.searchsorted(ascending, values[::-1], side="right")[::-1]
    below = np.searchsorted(ascending, values[::-1], side="left")[::-1]
    ranks = len(similarities) - not_above + 1
    tied = np.flatnonzero(not_above - below > 1)
    if len(tied) > FEW_TIES:
        ranks_of_all = np.empty(len(similarities), np.int64)
        ranks_of_all[np.argsort(-similarities, kind="stable")] = np.arange(1, len(similarities) + 1)
        return ranks_of_all[items]
    for tie in tied:
        ranks[tie] += np.count_nonzero(similarities[: items[tie]] == values[tie])
    return ranks
