"""At which ranks a query's relevant items stand. Retrieval measures are functions of these ranks; they live in retrieval.py.

Shapes: Q queries, G gallery items, R relevant items of one query.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from assets.metrics.similarity import Mask, Vectors, mask_block, similarity_blocks

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
            items = np.flatnonzero(mask)
            yield _ranks(row, items[row[items] > -np.inf])


def _ranks(similarities: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Ascending ranks of `items` [R] in the descending order of `similarities` [G].

    Sorting the values alone and looking the relevant ones up is several times faster than an argsort; only ties need indices.
    """
    if not len(items):
        return np.zeros(0, np.int64)
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
