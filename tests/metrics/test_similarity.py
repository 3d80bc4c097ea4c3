"""What the block products promise beyond being products."""

import numpy as np
import pytest

from assets.metrics.similarity import exclude_self, similarity_blocks


@pytest.mark.parametrize("seed", range(5))
def test_equal_rows_have_equal_similarities(seed):
    generator = np.random.default_rng(seed)
    row = generator.standard_normal(384).astype(np.float32)
    row[0] = 0.0
    gallery = np.tile(row, (611, 1))
    gallery[-3:, 0] = -0.0  # equal to 0, though its bits are not; the last columns are where products differ
    for _, _, block in similarity_blocks(generator.standard_normal((1, 384)).astype(np.float32), gallery):
        assert len(np.unique(block)) == 1


def test_excluded_items_are_at_minus_infinity():
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    ((start, stop, block),) = similarity_blocks(vectors, vectors, exclude_self(3))
    assert (start, stop) == (0, 3)
    np.testing.assert_array_equal(block, [[-np.inf, 0, 3], [0, -np.inf, 0], [3, 0, -np.inf]])


def test_exclude_self_of_a_later_block():
    np.testing.assert_array_equal(exclude_self(4)(2, 4), np.eye(4, dtype=bool)[2:])
