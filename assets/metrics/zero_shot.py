"""Zero-shot classification with prompt ensembles (CLIP, arXiv 2103.00020, §3.1.4). The prompts and their encoding are the caller's.

Shapes: Q images, C classes, P prompts, d embedding.
"""

from __future__ import annotations

import numpy as np

from assets.metrics.similarity import Vectors, as_array, as_vectors, similarity_blocks


def prompt_ensemble(embeddings: Vectors) -> np.ndarray:
    """One unit-norm vector per class [C, d] from its prompts' embeddings [C, P, d]: normalise → mean over P → normalise.

    ValueError for an embedding without direction (zero), and for a class whose prompts cancel out.
    """
    array = as_array(embeddings)
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise ValueError(f"embeddings must be [classes, prompts, dimensions], given shape {list(array.shape)}")
    vectors = as_vectors(array.reshape(-1, array.shape[2]), "embeddings").reshape(array.shape)
    return _normalised(_normalised(vectors, shortest=0.0).mean(axis=1), shortest=1e-6)


def zero_shot_predictions(images: Vectors, class_embeddings: Vectors) -> np.ndarray:
    """The most similar class of each image, int64 [Q], for images [Q, d] and class_embeddings [C, d]; the lowest index among equals."""
    if not len(class_embeddings):
        raise ValueError("there is no class to choose from")
    predicted = np.zeros(len(images), np.int64)
    for start, stop, similarities in similarity_blocks(images, class_embeddings):
        predicted[start:stop] = similarities.argmax(axis=1)
    return predicted


def _normalised(vectors: np.ndarray, shortest: float) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if (norms <= shortest).any():
        number = int(np.argwhere(norms <= shortest)[0, 0])
        raise ValueError(f"class {number} has no direction: a prompt's embedding is zero, or its prompts cancel out")
    return vectors / norms
