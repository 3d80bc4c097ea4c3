"""At which ranks a query's relevant items stand. Retrieval measures are functions of these ranks; they live in retrieval.py.

Shapes: Q queries, G gallery items, R relevant items of one query.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from assets.metrics.similarity import Mask, Vectors, mask_block, similarity_blocks

FEW_RELEVANT = 24  # more relevant items of one query are looked up in its sorted similarities; up to here a count for each is faster
FEW_TIES = 16  # more tied items of one query are ranked by one stable sort


def relevant_ranks(query: Vectors, gallery: Vectors, relevant: Mask, exclude: Mask | None = None) -> Iterator[np.ndarray]:
    """Yield for each query in turn the ranks of its relevant items: int64 [R], ascending, 1 = most similar; empty where it has none.

    query [Q, d], gallery [G, d]: similarity is the dot product in fp32 or better. relevant, exclude: boolean [Q, G], or a function
    (start, stop) → boolean [stop − start, G]. Excluded items are not in the ranking, relevant or not. Of equally similar items the
    one with the lower gallery index ranks first. Exact; memory is bounded, whatever Q.
    """
    shape = len(query), len(gallery)
    scratch = np.empty(len(gallery), bool)
    for start, stop, similarities in similarity_blocks(query, gallery, exclude):
        wanted = mask_block(relevant, start, stop, shape, "relevant")
        for row, mask in zip(similarities, wanted, strict=True):
            items = np.flatnonzero(mask)
            items = items[row[items] > -np.inf]
            yield _counted_ranks(row, items, scratch) if len(items) <= FEW_RELEVANT else _sorted_ranks(row, items)


def nearest_items(similarities: np.ndarray, k: int) -> np.ndarray:
    """The k most similar of [G], most similar first, ties by index; fewer where the rest is excluded (−inf)."""
    if k < len(similarities):
        least = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
        candidates = np.flatnonzero((similarities >= least) & (similarities > -np.inf))
    else:
        candidates = np.flatnonzero(similarities > -np.inf)
    return candidates[np.argsort(-similarities[candidates], kind="stable")[:k]]


def _counted_ranks(similarities: np.ndarray, items: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Ascending ranks of `items` [R] in the descending order of `similarities` [G]: 1 + how many stand before each. `before` is scratch.

    Of the items with a lower index those at least as similar stand before it, of the others those more similar: ties need no extra pass.
    """
    ranks = np.empty(len(items), np.int64)
    for number, (item, value) in enumerate(zip(items.tolist(), similarities[items], strict=True)):
        np.greater_equal(similarities[:item], value, out=before[:item])
        np.greater(similarities[item:], value, out=before[item:])
        ranks[number] = np.count_nonzero(before) + 1
    ranks.sort()
    return ranks


def _sorted_ranks(similarities: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The same for many items.

    Sorting the values alone and looking the relevant ones up is several times faster than an argsort; only ties need indices.
    """
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
