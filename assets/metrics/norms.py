"""Which embeddings can be compared at all. What is done about the others is the caller's decision.

Shapes: N vectors, d embedding.
"""

from __future__ import annotations

import numpy as np

from assets.metrics.similarity import Vectors, as_array

NORM_TOLERANCE = 1e-3


def unit_norm(vectors: Vectors) -> np.ndarray:
    """bool [N]: true where a row of [N, d] is finite and its norm is 1 within 10⁻³.

    A tower that answers zeros for a picture, or overflows, gives a row that is not. A zero row is similar to nothing: 0 with every other.
    """
    array = as_array(vectors)
    norms = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64))  # without a copy of millions of vectors in float64
    return np.abs(norms - 1) <= NORM_TOLERANCE  # false for nan
