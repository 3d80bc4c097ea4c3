"""Which embeddings count as usable: a zero, a nan or a long one that passes would be stored and never found."""

import numpy as np
import pytest
import torch

from assets.metrics.norms import unit_norm


@pytest.mark.parametrize("kind", [np.float32, torch.float64])
def test_which_embeddings_can_be_compared(kind):
    rows = [[0.6, 0.8], [0, 0], [1, 1], [np.nan, 1], [np.inf, 0], [1.0005, 0], [0.998, 0]]
    vectors = torch.tensor(rows, dtype=kind) if kind is torch.float64 else np.array(rows, kind)
    assert unit_norm(vectors).tolist() == [True, False, False, False, False, True, False]
