"""Ranks to percent: the mean over the queries that have something to find."""

import numpy as np
import pytest

from assets.errors import UserError
from assets.evaluation.benchmarks.recall import percent, recalls


def test_recall_counts_the_first_relevant_item_and_skips_queries_without_one():
    ranks = [np.array([1, 9]), np.array([4]), np.array([], np.int64), np.array([6, 7])]
    assert recalls(ranks, (1, 5, 10)) == {
        "recall_at_1": pytest.approx(100 / 3, abs=1e-4),
        "recall_at_5": pytest.approx(200 / 3, abs=1e-4),
        "recall_at_10": 100.0,
    }


def test_no_query_with_anything_to_find_is_an_error_and_not_a_number():
    with pytest.raises(UserError, match="no query has anything relevant"):
        percent(np.array([np.nan, np.nan]))
