"""Retrieval measures against a slow float64 loop that follows the definition, and against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from assets.metrics import ranking, similarity
from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import average_precisions, hits_at_k, mean_average_precision, recall_at_k
from assets.metrics.similarity import exclude_self


def slow_ranking(query, gallery, exclude):
    """Gallery indices of one query, the most similar first, the lower index first among equals."""
    similarity = [sum(float(a) * float(b) for a, b in zip(query, item, strict=True)) for item in gallery]
    return sorted((j for j in range(len(gallery)) if not exclude[j]), key=lambda j: (-similarity[j], j))


def slow_average_precisions(query, gallery, relevant, exclude=None):
    exclude = np.zeros((len(query), len(gallery)), bool) if exclude is None else exclude
    found = []
    for i in range(len(query)):
        hits, precisions = 0, []
        for rank, j in enumerate(slow_ranking(query[i], gallery, exclude[i]), start=1):
            if relevant[i, j]:
                hits += 1
                precisions.append(hits / rank)
        found.append(sum(precisions) / len(precisions) if precisions else math.nan)
    return np.array(found)


def slow_hits(query, gallery, relevant, k):
    nothing = np.zeros(len(gallery), bool)
    return [float(any(relevant[i, j] for j in slow_ranking(query[i], gallery, nothing)[:k])) for i in range(len(query))]


def integers(generator, rows, d=3):
    """Small integers: dot products are exact and many are equal."""
    return generator.integers(-1, 2, size=(rows, d)).astype(np.float32)


def test_a_worked_example():
    # The query points along x; the gallery's similarities are 0.9, 0.8, 0.8, 0.1, −0.5, and items 0, 2, 3 are relevant.
    # Item 2 ties with item 1 and has the higher index: ranks are 1, 3, 4, so AP = (1/1 + 2/3 + 3/4) / 3 = 29/36.
    query = np.array([[1.0, 0.0]])
    gallery = np.array([[0.9, 0.3], [0.8, 0.1], [0.8, -0.7], [0.1, 0.2], [-0.5, 0.0]])
    relevant = np.array([[True, False, True, True, False]])
    assert [list(ranks) for ranks in relevant_ranks(query, gallery, relevant)] == [[1, 3, 4]]
    assert mean_average_precision(query, gallery, relevant) == pytest.approx(29 / 36, abs=1e-12)
    # Without item 1 the ranks are 1, 2, 3; without item 0 those of items 2 and 3 are 2, 3: (1/2 + 2/3) / 2 = 7/12.
    assert mean_average_precision(query, gallery, relevant, exclude=np.arange(5)[None] == 1) == 1
    assert mean_average_precision(query, gallery, relevant, exclude=np.arange(5)[None] == 0) == pytest.approx(7 / 12, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["real", "integer", "all_equal"])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
@pytest.mark.parametrize(
    ("small_share", "few_relevant", "few_ties"),
    [(1, 0, 0), (0, 10**6, 0), (0, 0, 0), (0, 0, 10**6), (1 / 4, 3, 2)],
    ids=["near", "counted", "looked_up_sorted", "looked_up_counted", "mixed"],
)
def test_equals_the_definition(seed, kind, density, small_share, few_relevant, few_ties, monkeypatch):
    monkeypatch.setattr(ranking, "SMALL_SHARE", small_share)
    monkeypatch.setattr(ranking, "FEW_RELEVANT", few_relevant)
    monkeypatch.setattr(ranking, "FEW_TIES", few_ties)
    generator = np.random.default_rng(seed)
    queries, items = int(generator.integers(1, 12)), int(generator.integers(1, 60))
    make = {
        "real": lambda n: generator.standard_normal((n, 5)),
        "integer": lambda n: integers(generator, n),
        "all_equal": lambda n: np.ones((n, 2)),
    }
    query, gallery = make[kind](queries), make[kind](items)
    relevant = generator.random((queries, items)) < density
    exclude = generator.random((queries, items)) < 0.2
    relevant[0, 0], exclude[0, 0] = True, False
    np.testing.assert_allclose(average_precisions(query, gallery, relevant), slow_average_precisions(query, gallery, relevant), atol=1e-12)
    expected = slow_average_precisions(query, gallery, relevant, exclude)
    np.testing.assert_allclose(average_precisions(query, gallery, relevant, exclude), expected, atol=1e-12)
    assert mean_average_precision(query, gallery, relevant, exclude) == pytest.approx(np.nanmean(expected), abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("queries", "items"), [(1, 17), (1, 611), (2, 61), (64, 611)])
def test_copies_tie_exactly_wherever_they_stand(dtype, queries, items):
    """In a matrix product the last bit of a value depends on its column (seen for most of these shapes); the order must not."""
    generator = np.random.default_rng(0)
    distinct = generator.standard_normal((2, 384)).astype(dtype)
    distinct[:, 0] = 0.0
    gallery = distinct[generator.integers(2, size=items)]
    gallery[generator.random(items) < 0.5, 0] = -0.0  # equal to 0, though its bits are not
    query = generator.standard_normal((queries, 384)).astype(dtype)
    relevant = generator.random((queries, items)) < 0.2
    relevant[:, -1] = True
    similarity = query.astype(np.float64) @ distinct.T.astype(np.float64)
    copy_of = (gallery[:, 1] == distinct[1, 1]).astype(int)
    expected = []
    for i in range(queries):
        order = sorted(range(items), key=lambda j: (-similarity[i, copy_of[j]], j))
        expected.append(np.flatnonzero(relevant[i][order]) + 1)
    for found, ranks in zip(relevant_ranks(query, gallery, relevant), expected, strict=True):
        np.testing.assert_array_equal(found, ranks)


def test_fp32_agrees_with_float64():
    generator = np.random.default_rng(1)
    embeddings = generator.standard_normal((400, 32))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = generator.integers(40, size=400)
    relevant = labels[:, None] == labels
    same = mean_average_precision(embeddings, embeddings, relevant, exclude=np.eye(400, dtype=bool))
    assert mean_average_precision(embeddings.astype(np.float32), embeddings, relevant, np.eye(400, dtype=bool)) == pytest.approx(
        same, abs=1e-6
    )
    single = embeddings.astype(np.float32)
    assert mean_average_precision(single, single, relevant, exclude_self(400)) == pytest.approx(same, abs=1e-6)


@pytest.mark.parametrize(("rows", "items"), [(1, 2**26), (2, 2**26), (256, 40), (256, 2**26)])
def test_neither_blocks_nor_mask_functions_change_a_value(rows, items, monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK_ROWS", rows)
    monkeypatch.setattr(similarity, "BLOCK_ITEMS", items)
    generator = np.random.default_rng(2)
    query, gallery = integers(generator, 7), integers(generator, 25)
    relevant, exclude = generator.random((7, 25)) < 0.2, generator.random((7, 25)) < 0.2
    expected = slow_average_precisions(query, gallery, relevant, exclude)
    asked = []

    def block(start, stop):
        asked.append((start, stop))
        return relevant[start:stop]

    np.testing.assert_allclose(average_precisions(query, gallery, block, lambda start, stop: exclude[start:stop]), expected, atol=1e-12)
    np.testing.assert_allclose(average_precisions(query, gallery, relevant, exclude), expected, atol=1e-12)
    assert [number for start, stop in asked for number in range(start, stop)] == list(range(7))
    assert max(stop - start for start, stop in asked) <= max(1, min(rows, items // 25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors(dtype):
    generator = np.random.default_rng(3)
    query, gallery, relevant = integers(generator, 5), integers(generator, 9), generator.random((5, 9)) < 0.4
    relevant[0, 0] = True
    expected = mean_average_precision(query, gallery, relevant)
    as_tensors = torch.from_numpy(query).to(dtype).requires_grad_(), torch.from_numpy(gallery).to(dtype), torch.from_numpy(relevant)
    assert mean_average_precision(*as_tensors, exclude=torch.zeros(5, 9, dtype=torch.bool)) == expected
    assert mean_average_precision(query, as_tensors[1], lambda start, stop: as_tensors[2][start:stop]) == expected


def test_half_precision_vectors_are_multiplied_in_fp32():
    # In fp16 both dot products round to 2048 and would tie; exactly they are 2049 and 2048.
    query, gallery = np.array([[1, 1]], np.float16), np.array([[2048, 0], [2048, 1]], np.float16)
    assert mean_average_precision(query, gallery, np.array([[False, True]])) == 1


def test_queries_without_a_relevant_item_are_skipped():
    query, gallery = np.ones((3, 1)), np.array([[2.0], [1.0]])
    relevant = np.array([[False, True], [False, False], [True, False]])
    exclude = np.array([[False, False], [False, False], [True, False]])  # takes the third query's only relevant item
    np.testing.assert_array_equal(average_precisions(query, gallery, relevant), [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(average_precisions(query, gallery, relevant, exclude), [0.5, np.nan, np.nan])
    assert mean_average_precision(query, gallery, relevant) == 0.75
    assert mean_average_precision(query, gallery, relevant, exclude) == 0.5
    assert recall_at_k(query, gallery, relevant, k=1) == 0.5


@pytest.mark.parametrize("shape", [(2, 3), (2, 0), (0, 3), (0, 0)])
def test_nothing_to_average_is_an_error(shape):
    queries, items = shape
    with pytest.raises(ValueError, match=f"none of the {queries} queries has a relevant item"):
        mean_average_precision(np.ones((queries, 4)), np.ones((items, 4)), np.zeros(shape, bool))


def test_one_query_and_one_item():
    assert mean_average_precision(np.array([[-1.0]]), np.array([[1.0]]), np.array([[True]])) == 1


@pytest.mark.parametrize("k", [1, 2, 5, 100])
def test_recall_at_k_is_the_share_of_queries_with_a_hit(k):
    generator = np.random.default_rng(4)
    query, gallery = integers(generator, 20), integers(generator, 30)
    relevant = generator.random((20, 30)) < 0.1
    relevant[:, 7] = True
    expected = slow_hits(query, gallery, relevant, k)
    assert hits_at_k(query, gallery, relevant, k).tolist() == expected
    assert recall_at_k(query, gallery, relevant, k) == pytest.approx(np.mean(expected), abs=1e-12)


def test_wrong_arguments_are_named():
    good, mask = np.ones((2, 3)), np.ones((2, 2), bool)
    with pytest.raises(ValueError, match="query has 3 dimensions, gallery 4"):
        mean_average_precision(good, np.ones((2, 4)), mask)
    with pytest.raises(ValueError, match=r"relevant must be boolean \[2, 2\], given bool \[2, 3\]"):
        mean_average_precision(good, good, np.ones((2, 3), bool))
    with pytest.raises(ValueError, match=r"exclude must be boolean \[2, 2\], given int64 \[2, 2\]"):
        mean_average_precision(good, good, mask, mask.astype(np.int64))
    with pytest.raises(ValueError, match=r"relevant must be boolean \[2, 2\], given bool \[1, 2\]"):
        mean_average_precision(good, good, lambda start, stop: mask[:1])
    with pytest.raises(ValueError, match="gallery row 1 holds NaN or infinity"):
        mean_average_precision(good, np.array([[1.0, 1, 1], [1, np.nan, 1]]), mask)
    with pytest.raises(ValueError, match=r"query must be \[rows, dimensions\], given shape \[3\]"):
        mean_average_precision(np.ones(3), good, mask)
    with pytest.raises(ValueError, match="dot products overflow"):
        mean_average_precision(np.full((2, 3), 1e30, np.float32), np.full((2, 3), 1e30, np.float32), mask)
    with pytest.raises(ValueError, match="k must be at least 1"):
        recall_at_k(good, good, mask, k=0)
