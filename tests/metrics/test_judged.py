"""Measures of partly judged rankings, by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from assets.metrics.judged import agreement, mean, precision


def test_an_unjudged_hit_is_neither_right_nor_wrong():
    assert precision([None, True, None, False, True]) == pytest.approx(2 / 3)
    assert precision([None, None]) is None
    assert precision([]) is None


def test_agreement_counts_pairs():
    """Counted backwards, the worst ranking was the best."""
    assert agreement([True, True, False]) == 1
    assert agreement([False, True]) == 0
    assert agreement([True, True]) is None
    assert agreement([]) is None
    for seed in range(5):
        ranked = np.random.default_rng(seed).random(12) < 0.5
        pairs = [bool(one) for one, other in itertools.combinations(ranked, 2) if one != other]
        assert agreement(ranked.tolist()) == pytest.approx(np.mean(pairs))


def test_mean_leaves_out_what_is_not_there():
    assert mean([None, 0.0, 1.0]) == 0.5
    assert mean([None]) is None
