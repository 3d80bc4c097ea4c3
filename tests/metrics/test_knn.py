"""The weighted vote against a plain loop and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from assets.metrics.knn import knn_predictions
from assets.metrics.similarity import exclude_self


def slow_predictions(query, gallery, labels, k, temperature, exclude):
    predicted = []
    for i in range(len(query)):
        similarity = [sum(float(a) * float(b) for a, b in zip(query[i], item, strict=True)) for item in gallery]
        nearest = sorted((j for j in range(len(gallery)) if not exclude[i, j]), key=lambda j: (-similarity[j], j))[:k]
        votes = {}
        for j in nearest:
            votes[labels[j]] = votes.get(labels[j], 0.0) + math.exp(similarity[j] / temperature)
        predicted.append(min(votes, key=lambda label: (-votes[label], label)))
    return predicted


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_equals_the_definition(seed, k, whole_numbers):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((30, 4))
    # whole numbers: exact ties at the edge of the k and between the sums
    vectors = np.sign(vectors.round()) if whole_numbers else vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = generator.integers(4, size=30) * 10
    expected = slow_predictions(vectors, vectors, labels, k, 0.5, np.eye(30, dtype=bool))
    found = knn_predictions(vectors, vectors, labels, k=k, temperature=0.5, exclude=exclude_self(30))
    assert found.tolist() == expected


@pytest.mark.parametrize("k", [1, 5, 21])
def test_equals_scikit_learn_without_ties(k):
    generator = np.random.default_rng(0)
    query, gallery = (generator.standard_normal((rows, 8)) for rows in (50, 120))
    query, gallery = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (query, gallery))
    labels = generator.integers(6, size=120)
    classifier = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.1))
    expected = classifier.fit(gallery, labels).predict(query)
    assert knn_predictions(query, gallery, labels, k=k, temperature=0.1).tolist() == expected.tolist()


def test_two_near_ones_against_three_far_ones():
    # Similarities 0.9, 0.9 of class 1 and 0.8, 0.8, 0.8 of class 0. At T = 0.1: 2·e⁹ = 16,206 > 3·e⁸ = 8,943. At T = 1: 4.92 < 6.68.
    query, gallery, labels = np.array([[1.0]]), np.array([[0.9], [0.8], [0.8], [0.9], [0.8]]), np.array([1, 0, 0, 1, 0])
    assert knn_predictions(query, gallery, labels, k=5, temperature=0.1).tolist() == [1]
    assert knn_predictions(query, gallery, labels, k=5, temperature=1.0).tolist() == [0]


def test_ties():
    query = np.array([[1.0]])
    # equal sums: the lowest label, though the other one is nearer by index
    assert knn_predictions(query, np.array([[0.5], [0.5]]), np.array([7, 3]), k=2, temperature=0.1).tolist() == [3]
    # equally similar at the edge of the k: the lower index
    assert knn_predictions(query, np.array([[0.1], [0.5], [0.5]]), np.array([0, 7, 3]), k=1, temperature=0.1).tolist() == [7]


def test_a_small_temperature_does_not_overflow():
    assert knn_predictions(np.array([[1.0]]), np.array([[0.9], [1.0]]), np.array([0, 1]), k=2, temperature=1e-4).tolist() == [1]


def test_labels_may_be_words_and_vectors_tensors():
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    found = knn_predictions(vectors, vectors, np.array(["cat", "cat", "dog"]), k=1, temperature=0.1, exclude=exclude_self(3))
    assert found.tolist() == ["cat", "cat", "cat"]


def test_wrong_arguments_are_named():
    one = np.ones((1, 2))
    with pytest.raises(ValueError, match="query 0 has no gallery item to compare with"):
        knn_predictions(one, one, np.array([0]), k=1, temperature=0.1, exclude=exclude_self(1))
    with pytest.raises(ValueError, match="k must be at least 1 and temperature above 0, given 0 and"):
        knn_predictions(one, one, np.array([0]), k=0, temperature=0.1)
    with pytest.raises(ValueError, match=r"gallery_labels must be \[1\], given shape \[2\]"):
        knn_predictions(one, one, np.array([0, 1]), k=1, temperature=0.1)
