"""The assignment by hand on the circle, and against the slow obvious version on random data with ties."""

import numpy as np
import pytest

from assets.pseudo_captions import assign
from assets.pseudo_captions.assign import assign_captions

ALL = np.ones(2000, bool)  # findable


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def slow(images, texts, clusters, own, findable, top_k, min_similarity):
    """The definition in plain loops. The cosines are those of the same blocks, since one of another shape may differ in the last bit."""
    assigned = []
    for start in range(0, len(images), assign.ROWS_AT_ONCE):
        for row, cosines in enumerate(images[start : start + assign.ROWS_AT_ONCE] @ texts.T, start):
            chosen, taken = list(own[row]), {clusters[caption] for caption in own[row]}
            for caption in sorted(range(len(texts)), key=lambda number: (-cosines[number], number)):
                if len(chosen) == len(own[row]) + top_k or cosines[caption] < np.float32(min_similarity):
                    break
                if findable[caption] and clusters[caption] not in taken:
                    taken.add(clusters[caption])
                    chosen.append(caption)
            assigned.append(chosen)
    return assigned


def random_case(seed, images, texts, clusters, width, ties):
    """Unit-norm vectors, own captions of zero to three, most findable; with `ties` of few directions, so that many are equal."""
    generator = np.random.default_rng(seed)
    shape = images + texts, width
    vectors = np.asarray(generator.integers(-1, 2, shape) if ties else generator.standard_normal(shape), np.float32)
    vectors[~vectors.any(axis=1), 0] = 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own = [generator.choice(texts, generator.integers(4), replace=False).tolist() for _ in range(images)]
    return vectors[:images], vectors[images:], generator.integers(clusters, size=texts), own, generator.random(texts) < 0.8


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("top_k", "clusters", "min_similarity"), [(5, 300, 0.27), (1, 40, -1.0), (30, 25, 0.0), (3, 2, 0.9), (5, 400, 0.7071067811865475)]
)
def test_equals_the_slow_version(top_k, clusters, min_similarity, seed, ties):
    images, texts, of, own, findable = random_case(seed, 60, 400, clusters, 4, ties)
    expected = slow(images, texts, of, own, findable, top_k, min_similarity)
    assert assign_captions(images, texts, of, own, findable, top_k=top_k, min_similarity=min_similarity) == expected


@pytest.mark.parametrize("ties", [False, True])
def test_equals_the_slow_version_in_many_blocks(ties, monkeypatch):
    """Candidates of one block of captions must not hide better ones of another, nor equal ones with a lower number."""
    monkeypatch.setattr(assign, "ROWS_AT_ONCE", 16)
    images, texts, of, own, findable = random_case(0, 50, 300, 200, 4, ties)
    expected = slow(images, texts, of, own, findable, 5, 0.2)
    monkeypatch.setattr(assign, "COLUMNS_AT_ONCE", 64)
    assert assign_captions(images, texts, of, own, findable, top_k=5, min_similarity=0.2) == expected


def test_one_crowded_cluster_does_not_use_up_the_candidates():
    """A thousand copies of the nearest caption come before the second cluster: the first candidates are too few."""
    texts = np.concatenate([np.repeat(at(0), 1000, axis=0), at(*np.linspace(10, 60, 500))])
    clusters = np.concatenate([np.zeros(1000, np.int64), np.arange(1, 501)])
    found = assign_captions(at(0), texts, clusters, [[]], ALL[: len(texts)], top_k=3, min_similarity=0.5)
    assert found == [[0, 1000, 1001]]


def test_a_caption_without_an_embedding_hides_no_other():
    """NaN counts as the highest value in a partition: it would use up the candidates, or make all of them uncertain."""
    texts = np.concatenate([np.full((20, 2), np.nan, np.float32), at(*range(1, 80))])
    assert assign_captions(at(0), texts, np.arange(99), [[]], ALL[:99], top_k=2, min_similarity=0.5) == [[20, 21]]


def test_no_captions_and_no_images():
    none = np.zeros((0, 2), np.float32)
    assert assign_captions(at(0), none, np.zeros(0, np.int64), [[]], ALL[:0], top_k=3, min_similarity=0.0) == [[]]
    assert assign_captions(none, at(0), np.zeros(1, np.int64), [], ALL[:1], top_k=3, min_similarity=0.0) == []


def test_own_first_then_the_most_similar_one_a_cluster():
    # captions at 0°, 5°, 10°, 40°, 80°; the first two share a cluster
    texts, clusters = at(0, 5, 10, 40, 80), np.array([0, 0, 1, 2, 3])
    images = at(1, 79)
    found = assign_captions(images, texts, clusters, [[], [3]], ALL[:5], top_k=2, min_similarity=0.5)
    # image 0: caption 0 (1° away), not 1 (same cluster), then 2; 40° is third. Image 1: its own 3, then 4; 2 is beyond cos 0.5 (69° away)
    assert found == [[0, 2], [3, 4]]


def test_nothing_above_the_threshold_leaves_its_own_captions():
    found = assign_captions(at(90), at(0, 10), np.array([0, 1]), [[1]], ALL[:2], top_k=5, min_similarity=0.27)
    assert found == [[1]]


def test_a_found_caption_is_never_of_the_cluster_of_an_own_one():
    found = assign_captions(at(0), at(0, 1), np.array([4, 4]), [[1]], ALL[:2], top_k=5, min_similarity=0.0)
    assert found == [[1]]


def test_equal_cosines_go_by_caption_number():
    found = assign_captions(at(0), at(10, -10), np.array([0, 1]), [[]], ALL[:2], top_k=1, min_similarity=0.0)
    assert found == [[0]]


def test_what_may_not_be_found_is_passed_over_and_takes_no_cluster():
    """The name of another class is the nearest text of all, and often in the cluster of a caption that fits."""
    texts, clusters = at(0, 1, 10, 20), np.array([0, 0, 1, 2])
    findable = np.array([False, True, True, False])
    assert assign_captions(at(0), texts, clusters, [[]], findable, top_k=3, min_similarity=0.0) == [[1, 2]]
    assert assign_captions(at(0), texts, clusters, [[0]], findable, top_k=3, min_similarity=0.0) == [[0, 2]]
    assert assign_captions(at(0), texts, clusters, [[0]], np.zeros(4, bool), top_k=3, min_similarity=-1.0) == [[0]]
