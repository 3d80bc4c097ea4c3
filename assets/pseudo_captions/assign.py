"""Which captions an image gets: its own, and the most similar others of the corpus, at most one a cluster.

Shapes: N images, T captions, d embedding.
"""

from __future__ import annotations

import numpy as np

ROWS_AT_ONCE = 1024  # of the similarity matrix; no result depends on it


def assign_captions(
    images: np.ndarray,
    texts: np.ndarray,
    clusters: np.ndarray,
    own: list[list[int]],
    *,
    top_k: int,
    min_similarity: float,
) -> list[list[int]]:
    """Caption numbers for every image: its `own` first, then up to `top_k` found ones, the most similar first.

    images [N, d] and texts [T, d] unit norm, clusters int64 [T]. A found caption has cosine ≥ min_similarity and a cluster that no
    caption before it has; equal cosines go by caption number.
    """
    assigned: list[list[int]] = []
    for start in range(0, len(images), ROWS_AT_ONCE):
        similarities = images[start : start + ROWS_AT_ONCE] @ texts.T
        for row, cosines in enumerate(similarities, start):
            assigned.append(own[row] + _found(cosines, clusters, {int(clusters[caption]) for caption in own[row]}, top_k, min_similarity))
    return assigned


def _found(cosines: np.ndarray, clusters: np.ndarray, taken: set[int], top_k: int, min_similarity: float) -> list[int]:
    candidates = np.flatnonzero(cosines >= min_similarity)
    chosen: list[int] = []
    for caption in candidates[np.argsort(-cosines[candidates], kind="stable")]:
        if len(chosen) == top_k:
            break
        if (cluster := int(clusters[caption])) not in taken:
            taken.add(cluster)
            chosen.append(int(caption))
    return chosen
