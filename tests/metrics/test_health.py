"""The health of an embedding against slow float64 loops, worked examples and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import skew
from sklearn.neighbors import NearestNeighbors

from assets.metrics import health
from assets.metrics.health import alignment, drift, effective_rank, hubness, modality_gap, same_class_threshold, uniformity

CIRCLE = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def unit(rows, d=6, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(params=[(256, 8192), (7, 5)], ids=["one block", "small blocks"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(health, "ROWS", request.param[0])
    monkeypatch.setattr(health, "COLUMNS", request.param[1])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("rows", [2, 7, 40])
def test_equal_slow_references(rows):
    images, texts = unit(rows), unit(rows, seed=1)
    pairs = list(zip(images, texts, strict=True))
    assert alignment(images, texts) == pytest.approx(sum(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for x, y in pairs) / rows)
    assert drift(images, texts) == pytest.approx(sum(float(x @ y) for x, y in pairs) / rows, abs=1e-12)
    assert modality_gap(images, texts) == pytest.approx(math.dist(sum(images) / rows, sum(texts) / rows), abs=1e-12)
    terms = [math.exp(-2 * math.dist(images[i], images[j]) ** 2) for i in range(rows) for j in range(i)]
    assert uniformity(images) == pytest.approx(math.log(sum(terms) / len(terms)), abs=1e-12)
    assert uniformity(images) == pytest.approx(np.log(np.exp(-2 * pdist(images, "sqeuclidean")).mean()), abs=1e-12)
    shares = np.linalg.svd(images, compute_uv=False)
    shares /= shares.sum()
    assert effective_rank(images) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), abs=1e-9)


MEASURES = {
    "uniformity": uniformity,
    "effective_rank": effective_rank,
    "hubness": lambda vectors: hubness(vectors, 3),
    "alignment": lambda vectors: alignment(vectors[:30], vectors[30:]),
    "drift": lambda vectors: drift(vectors[:30], vectors[30:]),
    "modality_gap": lambda vectors: modality_gap(vectors[:20], vectors[20:]),
}


@pytest.mark.parametrize("name", MEASURES)
def test_fp32_and_tensors_agree_with_float64(name):
    vectors = unit(60)
    expected = MEASURES[name](vectors)
    assert MEASURES[name](torch.from_numpy(vectors)) == expected
    assert MEASURES[name](vectors.astype(np.float32)) == pytest.approx(expected, abs=1e-5)


def test_worked_examples():
    # Opposite pairs are 4 apart squared, neighbours 2: of six pairs two and four.
    assert uniformity(CIRCLE) == pytest.approx(math.log((2 * math.exp(-8) + 4 * math.exp(-4)) / 6), abs=1e-12)
    assert alignment(CIRCLE, CIRCLE) == 0
    assert alignment(CIRCLE, CIRCLE[[2, 1, 0, 3]]) == pytest.approx(2, abs=1e-12)  # two of four turned round
    assert modality_gap(CIRCLE, CIRCLE[:1]) == 1  # centres (0, 0) and (1, 0)
    assert modality_gap(CIRCLE[:1], CIRCLE[2:3]) == 2
    assert drift(CIRCLE, CIRCLE) == 1
    assert drift(CIRCLE, CIRCLE[[2, 1, 0, 3]]) == 0
    assert drift(CIRCLE, 5 * CIRCLE) == 1  # a cosine has no length
    assert effective_rank(CIRCLE) == pytest.approx(2, abs=1e-12)
    assert effective_rank(np.eye(5)) == pytest.approx(5, abs=1e-12)


def test_all_vectors_the_same():
    same = np.tile(unit(1), (20, 1))
    assert uniformity(same) == pytest.approx(0, abs=1e-12)
    assert effective_rank(same) == pytest.approx(1, abs=1e-9)
    assert effective_rank(same[:1]) == pytest.approx(1, abs=1e-12)
    assert drift(same, same) == pytest.approx(1, abs=1e-12)
    assert drift(np.eye(2), np.array([[1.0, 0], [0, 0]])) == 0.5


@pytest.mark.parametrize("k", [1, 5, 10])
def test_hubness_equals_scikit_learn_and_scipy(k):
    vectors = unit(80, d=20)
    neighbours = NearestNeighbors(n_neighbors=k, metric="cosine").fit(vectors).kneighbors(return_distance=False)
    assert hubness(vectors, k) == pytest.approx(skew(np.bincount(neighbours.ravel(), minlength=80)), abs=1e-9)


def test_hubness_by_hand():
    # Item 3 is the nearest of all others, item 0 of item 3 by its lower index: N_1 = 1, 0, 0, 3 with mean 1, deviations 0, −1, −1, 2.
    vectors = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [3**-0.5] * 3])
    assert hubness(vectors, 1) == pytest.approx((6 / 4) / (6 / 4) ** 1.5, abs=1e-12)
    # among equals the lower index: 1 is nearest to 0, 0 to all others
    assert hubness(np.ones((4, 1)), 1) == pytest.approx(skew([3, 1, 0, 0]), abs=1e-12)
    # everyone is a neighbour of everyone
    assert hubness(CIRCLE, 3) == hubness(CIRCLE, 99) == hubness(CIRCLE[:1], 1) == 0


def slow_threshold(vectors, classes):
    """Every candidate tried on every pair."""
    pairs = [(float(vectors[i] @ vectors[j]), classes[i] == classes[j]) for i in range(len(vectors)) for j in range(i)]
    candidates = sorted({min(math.floor(similarity * 2**15), 2**15 - 1) / 2**15 for similarity, _ in pairs})
    found = []
    for threshold in candidates:
        called = [same for similarity, same in pairs if similarity >= threshold]
        precision, recall = sum(called) / len(called), sum(called) / sum(same for _, same in pairs)
        found.append((2 * sum(called) / (len(called) + sum(same for _, same in pairs)), threshold, precision, recall))
    f1, threshold, precision, recall = max(found)
    precise = [threshold for _, threshold, precision, _ in found if precision >= 0.95]
    return threshold, precision, recall, f1, min(precise) if precise else None


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["random", "clusters", "whole_numbers", "all_same", "one_pair", "some_zero"])
def test_same_class_threshold_equals_trying_all(seed, kind):
    generator = np.random.default_rng(seed)
    classes = generator.integers(5, size=24)
    if kind == "all_same":
        classes[:] = 3
    if kind == "one_pair":
        classes = np.arange(24)
        classes[3] = classes[11]
    vectors = unit(24, d=4, seed=seed)
    if kind == "clusters":
        vectors = unit(5, d=4, seed=seed)[classes] + 0.3 * vectors
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if kind == "whole_numbers":
        vectors = np.concatenate([np.eye(4), -np.eye(4)])[generator.integers(8, size=24)]
    if kind == "some_zero":
        vectors[::7] = 0
    expected = slow_threshold(vectors, classes)
    found = same_class_threshold(vectors, classes)
    assert found[:4] == pytest.approx(expected[:4], abs=1e-12)
    assert found.threshold_at_95_precision == expected[4]


def test_same_class_threshold_by_hand():
    # Angles 0° and 10° are one class, 90° and 120° the other: similarities 0.985 and 0.866 within, at most cos 80° = 0.174 between.
    angles = np.radians([0, 10, 90, 120])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = same_class_threshold(vectors, np.array(["a", "a", "b", "b"]))
    assert found[1:4] == (1, 1, 1)
    assert found.threshold == found.threshold_at_95_precision == pytest.approx(math.cos(math.pi / 6), abs=2**-15)
    assert found.threshold <= math.cos(math.pi / 6)
    # the nearest pair is of two classes, so nothing is precise: calling all «same» is best, with one right of three
    found = same_class_threshold(vectors[:3], np.array([0, 1, 0]))
    assert found[1:] == pytest.approx((1 / 3, 1, 1 / 2, None))
    assert found.threshold <= 0 < found.threshold + 2**-15 + 1e-9


def test_equal_images_are_one_candidate_whatever_their_last_bit():
    vectors = np.concatenate([np.tile(unit(1, d=384, seed=s), (30, 1)) for s in (0, 1)]).astype(np.float32)
    found = same_class_threshold(vectors, np.repeat([0, 1], 30))
    assert found == (1 - 2**-15, 1, 1, 1, 1 - 2**-15)


def test_wrong_arguments_are_named():
    one, two = unit(1), unit(2)
    with pytest.raises(ValueError, match=r"must pair up, given \[1, 6\] and \[2, 6\]"):
        alignment(one, two)
    with pytest.raises(ValueError, match=r"must pair up"):
        drift(one, two)
    with pytest.raises(ValueError, match="images has 6 dimensions, texts 5"):
        modality_gap(one, unit(1, d=5))
    with pytest.raises(ValueError, match="compares pairs; given 1 row"):
        uniformity(one)
    with pytest.raises(ValueError, match="vectors has no rows"):
        hubness(np.zeros((0, 3)), 1)
    with pytest.raises(ValueError, match="k must be at least 1, given 0"):
        hubness(two, 0)
    with pytest.raises(ValueError, match="they have no rank"):
        effective_rank(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"classes must be \[2\], given shape \[3\]"):
        same_class_threshold(two, np.zeros(3))
    with pytest.raises(ValueError, match="no two rows share a class"):
        same_class_threshold(two, np.arange(2))
    with pytest.raises(ValueError, match="must be unit norm"):
        same_class_threshold(2 * two, np.zeros(2))
