"""k-nearest-neighbour classification of embeddings, the weighted vote of Wu et al. (arXiv 1805.01978). Which k is the caller's choice.

Shapes: Q queries, G gallery items, d embedding.
"""

from __future__ import annotations

import numpy as np

from assets.metrics.ranking import nearest_items
from assets.metrics.similarity import Mask, Vectors, as_array, similarity_blocks


def knn_predictions(
    query: Vectors, gallery: Vectors, gallery_labels: np.ndarray, *, k: int, temperature: float, exclude: Mask | None = None
) -> np.ndarray:
    """The predicted label of each query [Q]: among its k nearest gallery items the label with the largest sum of exp(similarity / T).

    query [Q, d], gallery [G, d] unit norm, gallery_labels [G] of any sortable kind; exclude as in `mean_average_precision` (leave one
    out: `exclude_self`). Of equally similar items the one with the lower gallery index is nearer; of equal sums the lowest label wins.
    Where fewer than k items are left, all of them vote; where none is, ValueError.
    """
    if k < 1 or not temperature > 0:
        raise ValueError(f"k must be at least 1 and temperature above 0, given {k} and {temperature}")
    gallery_labels = as_array(gallery_labels)
    if gallery_labels.shape != (len(gallery),):
        raise ValueError(f"gallery_labels must be [{len(gallery)}], given shape {list(gallery_labels.shape)}")
    classes, class_of = np.unique(gallery_labels, return_inverse=True)
    predicted = np.zeros(len(query), np.int64)
    for start, _, block in similarity_blocks(query, gallery, exclude):
        for offset, similarities in enumerate(block):
            nearest = nearest_items(similarities, k)
            if not len(nearest):
                raise ValueError(f"query {start + offset} has no gallery item to compare with")
            # relative to the nearest: the same winner, and a small temperature does not overflow
            weights = np.exp((similarities[nearest].astype(np.float64) - similarities[nearest[0]]) / temperature)
            predicted[start + offset] = np.argmax(np.bincount(class_of[nearest], weights, minlength=len(classes)))
    return classes[predicted]
