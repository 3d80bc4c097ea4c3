"""Ranks and nearest items against a full sort: they take shortcuts for few relevant items, few ties and small k, which must not show."""

import numpy as np
import pytest

from assets.metrics.ranking import nearest_items, relevant_ranks


def ranks_by_sorting(similarities, relevant, excluded):
    order = [item for item in sorted(range(len(similarities)), key=lambda item: (-similarities[item], item)) if not excluded[item]]
    return [rank for rank, item in enumerate(order, start=1) if relevant[item]]


@pytest.mark.parametrize("share", [0.005, 0.05, 0.9])
@pytest.mark.parametrize("values", [2, 5, 10_000])
def test_ranks_equal_those_of_a_full_sort(values, share):
    """From one relevant item to nearly all, from nearly all similarities tied to none."""
    generator = np.random.default_rng(0)
    query, gallery = np.eye(4), generator.integers(values, size=(400, 4)).astype(float)
    relevant, excluded = generator.random((4, 400)) < share, generator.random((4, 400)) < 0.1
    found = list(relevant_ranks(query, gallery, relevant, excluded))
    for row, ranks in enumerate(found):
        assert ranks.tolist() == ranks_by_sorting(gallery[:, row], relevant[row], excluded[row])


@pytest.mark.parametrize("k", [1, 5, 399, 400, 1000])
@pytest.mark.parametrize("values", [2, 10_000])
def test_nearest_items_equal_those_of_a_full_sort(values, k):
    similarities = np.random.default_rng(1).integers(values, size=400).astype(float)
    similarities[::7] = -np.inf  # excluded
    order = [item for item in np.argsort(-similarities, kind="stable") if similarities[item] > -np.inf]
    assert nearest_items(similarities, k).tolist() == order[:k]
