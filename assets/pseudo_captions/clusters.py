"""Near-duplicate captions brought together: spherical k-means on their text embeddings.

Shapes: T captions, d embedding.
"""

from __future__ import annotations

import faiss
import numpy as np


def cluster_captions(texts: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cluster number of every caption, int64 [T], from unit-norm embeddings float32 [T, d]; at least 1 cluster, at most T."""
    count, width = texts.shape
    clusters = min(max(clusters, 1), count)
    # faiss warns where a cluster has few points, which is what clusters of near-duplicates have
    kmeans = faiss.Kmeans(width, clusters, niter=20, seed=seed % 2**31, spherical=True, min_points_per_centroid=1)
    kmeans.train(texts)
    _, nearest = kmeans.index.search(texts, 1)
    return nearest[:, 0].astype(np.int64)
