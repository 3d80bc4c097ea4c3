"""Hits and precision at k, and trapezoidal AP with junk: against the definitions in plain loops, by hand, and against kept libraries."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_hit_rate, retrieval_precision

from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import (
    average_precision,
    average_precisions,
    hits_at_k,
    mean_average_precision,
    precision_at_k,
    recall_at_k,
    trapezoidal_average_precision,
)
from assets.metrics.similarity import exclude_self

CASES = ["real", "ties", "duplicates", "no_positives", "all_positives", "junk_only", "one_item"]


def case(name, seed):
    """query [Q, d], gallery [G, d], relevant and junk [Q, G]; dot products of whole numbers are exact, so ties are ties."""
    generator = np.random.default_rng(seed)
    queries, items = 6, 1 if name == "one_item" else 30
    if name == "real":
        query, gallery = generator.standard_normal((queries, 5)), generator.standard_normal((items, 5))
    else:
        query, gallery = (generator.integers(-1, 2, size=(rows, 3)).astype(float) for rows in (queries, items))
    if name == "duplicates":
        gallery = gallery[generator.integers(3, size=items)]
    relevant, junk = generator.random((queries, items)) < 0.3, generator.random((queries, items)) < 0.3
    if name == "no_positives":
        relevant[1:] = False
    if name == "all_positives":
        relevant[:], junk[:] = True, False
    if name == "junk_only":
        junk[1:] = True
    relevant[0, 0], junk[0, 0] = True, False  # one query always has a positive, else there is no mean
    return query, gallery, relevant, junk


def slow_lists(query, gallery, relevant, junk):
    """For each query whether each item of its ranking is relevant, the most similar first, the lower index first, junk left out."""
    for i in range(len(query)):
        similarity = [math.fsum(float(a) * float(b) for a, b in zip(query[i], item, strict=True)) for item in gallery]
        order = sorted(range(len(gallery)), key=lambda j: (-similarity[j], j))
        yield [bool(relevant[i, j]) for j in order if not junk[i, j]]


def slow_trapezoidal(ranking):
    """The area between the points (recall, precision) of the curve, which starts at (0, 1): one point before and one at each hit."""
    if not any(ranking):
        return math.nan
    area, hits, recall, precision = 0.0, 0, 0.0, 1.0
    for rank, right in enumerate(ranking, start=1):
        hits += right
        new_recall, new_precision = hits / sum(ranking), hits / rank
        area += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    return area


def slow_precision_at_k(ranking, k):
    if not any(ranking):
        return math.nan
    last = max(rank for rank, right in enumerate(ranking, start=1) if right)
    depth = min(k, last)
    return sum(ranking[:depth]) / depth


def trapezoidal_average_precisions(query, gallery, relevant, junk):
    return np.array([trapezoidal_average_precision(ranks) for ranks in relevant_ranks(query, gallery, relevant, junk)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [1, 3, 10, 1000])
def test_at_k_equals_the_definition(name, seed, k):
    query, gallery, relevant, junk = case(name, seed)
    lists = list(slow_lists(query, gallery, relevant, junk))
    expected = [slow_precision_at_k(ranking, k) for ranking in lists]
    found = [precision_at_k(ranks, k) for ranks in relevant_ranks(query, gallery, relevant, junk)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    expected = [float(any(ranking[:k])) if any(ranking) else math.nan for ranking in lists]
    np.testing.assert_array_equal(hits_at_k(query, gallery, relevant, k, junk), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_trapezoids_equal_the_definition(name, seed):
    query, gallery, relevant, junk = case(name, seed)
    expected = [slow_trapezoidal(ranking) for ranking in slow_lists(query, gallery, relevant, junk)]
    found = trapezoidal_average_precisions(query, gallery, relevant, junk)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    plain = average_precisions(query, gallery, relevant, junk)
    assert (found <= plain + 1e-12)[~np.isnan(plain)].all()


def test_worked_examples():
    # Relevant at ranks 1, 3, 4. AP: (1 + 2/3 + 3/4) / 3 = 29/36.
    # Trapezoids: (1 + 1)/2, (1/2 + 2/3)/2, (2/3 + 3/4)/2, so (24 + 14 + 17) / 24 / 3.
    ranks = np.array([1, 3, 4])
    assert average_precision(ranks) == pytest.approx(29 / 36, abs=1e-12)
    assert trapezoidal_average_precision(ranks) == pytest.approx(55 / 72, abs=1e-12)
    # from k = 4 on, all is found and nothing further counts
    assert [precision_at_k(ranks, k) for k in (1, 2, 3, 4, 9)] == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4, 3 / 4], abs=1e-12)
    # the only relevant item is second: half of the area 0…1 at recall 1 lies under the line from precision 0 to 1/2
    assert trapezoidal_average_precision(np.array([2])) == pytest.approx(1 / 4, abs=1e-12)
    assert math.isnan(trapezoidal_average_precision(np.zeros(0, int)))
    assert math.isnan(precision_at_k(np.zeros(0, int), 3))


def test_easy_medium_hard():
    # Similarities 5, 4, 3, 2, 1 of an easy, a junk, a hard, a wrong and an easy item.
    query, gallery = np.array([[1.0]]), np.array([[5.0], [4.0], [3.0], [2.0], [1.0]])
    easy, junk, hard = (np.isin(np.arange(5), rows)[None] for rows in ([0, 4], [1], [2]))
    # easy: of items 0, 3, 4 ranks 1, 3: (1 + (1/2 + 2/3)/2) / 2; medium: of 0, 2, 3, 4 ranks 1, 2, 4: (1 + 1 + (2/3 + 3/4)/2) / 3
    assert trapezoidal_average_precisions(query, gallery, easy, junk | hard) == pytest.approx(19 / 24, abs=1e-12)
    assert trapezoidal_average_precisions(query, gallery, easy | hard, junk) == pytest.approx(65 / 72, abs=1e-12)
    # hard: of 2, 3 rank 1
    assert trapezoidal_average_precisions(query, gallery, hard, junk | easy) == 1
    (ranks,) = relevant_ranks(query, gallery, easy, junk | hard)
    assert precision_at_k(ranks, 10) == pytest.approx(2 / 3, abs=1e-12)


def test_the_query_in_the_ranking_counts_as_found():
    """GPR1200's own protocol: no exclusion, the query itself is first and relevant."""
    # Two classes of two on a line: items 0, 1 at 1 and 0.1, items 2, 3 at −1 and 0.9. Query 0 ranks 0, 3, 1, 2.
    vectors, classes = np.array([[1.0, 0], [0.1, 1], [-1.0, 0], [0.9, -1]]), np.array([0, 0, 1, 1])
    relevant = classes[:, None] == classes
    assert average_precisions(vectors, vectors, relevant)[0] == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)
    assert average_precisions(vectors, vectors, relevant, exclude_self(4))[0] == pytest.approx(1 / 2, abs=1e-12)


def unit(generator, rows, d=16):
    vectors = generator.standard_normal((rows, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_equals_scikit_learn_and_torchmetrics_without_ties():
    generator = np.random.default_rng(0)
    query, gallery = unit(generator, 20), unit(generator, 200)
    relevant = generator.random((20, 200)) < 0.05
    relevant[:, 7] = True
    # torchmetrics counts nothing with a score of 0 or less as relevant
    scores = (query @ gallery.T + 1) / 2
    expected = [average_precision_score(own, score) for own, score in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(average_precisions(query, gallery, relevant), expected, atol=1e-12)
    pairs = [(torch.from_numpy(score), torch.from_numpy(own)) for score, own in zip(scores, relevant, strict=True)]
    expected = [float(retrieval_average_precision(score, own)) for score, own in pairs]
    np.testing.assert_allclose(average_precisions(query, gallery, relevant), expected, atol=1e-6)
    for k in (1, 5, 500):
        expected = [float(retrieval_hit_rate(score, own, top_k=k)) for score, own in pairs]
        np.testing.assert_array_equal(hits_at_k(query, gallery, relevant, k), expected)
    # up to the last relevant item the protocol's P@k is the plain one
    expected = [float(retrieval_precision(score, own, top_k=5)) for score, own in pairs]
    far = [np.flatnonzero(np.sort(score[own])[0] <= np.sort(score)[::-1])[-1] >= 5 for score, own in zip(scores, relevant, strict=True)]
    assert all(far)
    found = [precision_at_k(ranks, 5) for ranks in relevant_ranks(query, gallery, relevant)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_k_below_one_is_an_error():
    one, mask = np.ones((1, 2)), np.ones((1, 1), bool)
    with pytest.raises(ValueError, match="k must be at least 1, given 0"):
        precision_at_k(np.array([1]), 0)
    with pytest.raises(ValueError, match="k must be at least 1, given 0"):
        recall_at_k(one, one, mask, k=0)
    with pytest.raises(ValueError, match="none of the 1 queries has a relevant item"):
        mean_average_precision(one, one, mask, exclude=mask)
    assert mean_average_precision(one, one, mask) == 1
