"""Numbers that show whether an embedding is in good order, whatever it is used for. Whether a number is good, the report decides.

Each docstring's first line says in plain words what the number means. Vectors are unit norm, arrays or tensors of fp32 or better, and are
read one block at a time: memory is bounded whatever N; time grows with N² where pairs are compared.

Shapes: N vectors, d embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from assets.metrics.norms import unit_norm
from assets.metrics.ranking import nearest_items
from assets.metrics.similarity import Vectors, as_array, as_vectors, exclude_self, similarity_blocks

ROWS = 256  # rows compared at once with …
COLUMNS = 8192  # … that many: 16 MiB in float64
BINS = 2**15  # similarity bins between 0 and 1: a power of two, so that which bin a similarity is in is exact
NEEDED_PRECISION = 0.95


class SameClassThreshold(NamedTuple):
    """Pairs at least `threshold` similar are called «same»; precision, recall and f1 are fractions of pairs there."""

    threshold: float
    precision: float
    recall: float
    f1: float
    threshold_at_95_precision: float | None


def modality_gap(images: Vectors, texts: Vectors) -> float:
    """How far the cloud of images lies from the cloud of texts: 0 where they share their centre, at most 2.

    ‖mean(images) − mean(texts)‖ (Liang et al. 2022, arXiv 2203.02053, section 4.2) for images [N, d] and texts [M, d].
    """
    images, texts = _some(images, "images"), _some(texts, "texts")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(f"images has {images.shape[1]} dimensions, texts {texts.shape[1]}; they must share one space")
    return float(np.linalg.norm(images.mean(axis=0, dtype=np.float64) - texts.mean(axis=0, dtype=np.float64)))


def alignment(images: Vectors, texts: Vectors) -> float:
    """How far apart an image and its own text lie: the mean squared distance, 0 where each pair coincides, 2 where unrelated, at most 4.

    E ‖x − y‖² over the rows of images [N, d] and texts [N, d] that belong together (Wang & Isola 2020, arXiv 2005.10242, α = 2).
    """
    images, texts = _paired(images, texts, "images", "texts")
    distances = (np.square(x - y).sum() for x, y in _row_blocks(images, texts))
    return float(sum(distances) / len(images))


def uniformity(vectors: Vectors) -> float:
    """How evenly the embeddings use the space: lower is more even, 0 where all are one point, about −4 at best in many dimensions.

    log E exp(−2 ‖x − y‖²) over the unordered pairs of different rows of [N, d] (Wang & Isola 2020, arXiv 2005.10242, t = 2).
    ValueError where there are fewer than two rows.
    """
    vectors = _some(vectors, "vectors")
    if len(vectors) < 2:
        raise ValueError("uniformity compares pairs; given 1 row")
    lengths = np.concatenate([np.square(rows).sum(axis=1) for (rows,) in _row_blocks(vectors)])
    log_sum = -math.inf
    for start, column, block, pairs in _pair_blocks(vectors):
        distances = lengths[start : start + block.shape[0], None] + lengths[column : column + block.shape[1]] - 2 * block
        exponents = -2 * np.maximum(distances, 0)[pairs]
        if len(exponents):
            highest = float(exponents.max())
            log_sum = float(np.logaddexp(log_sum, highest + math.log(np.exp(exponents - highest).sum())))
    return log_sum - math.log(len(vectors) * (len(vectors) - 1) / 2)


def hubness(vectors: Vectors, k: int) -> float:
    """Whether a few images turn up among everyone's nearest: about 0 where all do alike, well above 1 where some crowd out the rest.

    The skewness E (N_k − μ)³ / σ³ of how often N_k each row of [N, d] is among the k most similar of the others, by dot product
    (Radovanović, Nanopoulos & Ivanović 2010, JMLR 11, equation 1). Each row itself is excluded by index, ties go to the lower index; with
    fewer than k others all of them count. 0 where all rows occur equally often.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, given {k}")
    vectors = _some(vectors, "vectors")
    occurrences = np.zeros(len(vectors))
    for _, _, block in similarity_blocks(vectors, vectors, exclude_self(len(vectors))):
        for similarities in block:
            occurrences[nearest_items(similarities, k)] += 1
    deviations = occurrences - occurrences.mean()
    variance = np.mean(deviations**2)
    return float(np.mean(deviations**3) / variance**1.5) if variance > 0 else 0.0


def effective_rank(vectors: Vectors) -> float:
    """How many dimensions the embeddings really use: 1 where all lie on one line, d where all directions are used alike.

    exp of the entropy of the singular values of [N, d], divided by their sum (Roy & Vetterli 2007, EUSIPCO). Not centred, as there.
    """
    vectors = _some(vectors, "vectors")
    triangle = np.zeros((0, vectors.shape[1]))
    for (rows,) in _row_blocks(vectors):  # the triangle has the singular values of all rows so far
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, rows]), mode="r"))
    singular = np.linalg.svd(triangle, compute_uv=False)
    if not singular[0] > 0:
        raise ValueError("all vectors are zero: they have no rank")
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def drift(before: Vectors, after: Vectors) -> float:
    """How much of each embedding training kept: the mean cosine of before and after, 1 where nothing moved, 0 where nothing is left.

    Row i of before [N, d] and after [N, d] is the same image; of a zero row nothing is left.
    """
    before, after = _paired(before, after, "before", "after")
    total = 0.0
    for x, y in _row_blocks(before, after):
        lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        total += float(np.sum((x * y).sum(axis=1) / np.where(lengths > 0, lengths, 1)))
    return total / len(before)


def same_class_threshold(vectors: Vectors, classes: np.ndarray) -> SameClassThreshold:
    """The similarity above which two images are «same»: where precision and recall of that call are best together (highest F1).

    Over all pairs of different rows of vectors [N, d], «same» in truth where their classes [N], of any sortable kind, are equal.
    A pair is called «same» at a threshold t where its dot product ≥ t. Candidates are the similarities that occur, rounded down to
    multiples of 2⁻¹⁵ (and at most 1 − 2⁻¹⁵, so that equal images are always one candidate); counts at a candidate are exact. Of equally
    good candidates the highest is taken. threshold_at_95_precision is the lowest with a precision of at least 95 %, so the one with the
    most recall; None where there is none. ValueError where no two rows share a class, and for vectors that are neither unit norm nor zero.
    """
    vectors = _some(vectors, "vectors")
    numbers = as_array(classes)
    if numbers.shape != (len(vectors),):
        raise ValueError(f"classes must be [{len(vectors)}], given shape {list(numbers.shape)}")
    numbers = np.unique(numbers, return_inverse=True)[1]
    for (rows,) in _row_blocks(vectors):
        if not (unit_norm(rows) | ~rows.any(axis=1)).all():
            raise ValueError("vectors must be unit norm, so that similarities are between −1 and 1; normalise them first")
    all_pairs, same_pairs = np.zeros(2 * BINS, np.int64), np.zeros(2 * BINS, np.int64)
    for start, column, block, pairs in _pair_blocks(vectors):
        bins = np.clip(np.floor(block * BINS), -BINS, BINS - 1).astype(np.int64) + BINS
        same = numbers[start : start + block.shape[0], None] == numbers[column : column + block.shape[1]]
        all_pairs += np.bincount(bins[pairs], minlength=2 * BINS)
        same_pairs += np.bincount(bins[pairs & same], minlength=2 * BINS)
    if not same_pairs.any():
        raise ValueError("no two rows share a class, so there is no similarity to find")

    occurring = np.flatnonzero(all_pairs)[::-1]  # from the highest down
    called, right = np.cumsum(all_pairs[occurring]), np.cumsum(same_pairs[occurring])
    thresholds = occurring / BINS - 1
    precision, recall = right / called, right / right[-1]
    f1 = 2 * right / (called + right[-1])
    best = int(np.argmax(f1))
    precise = np.flatnonzero(precision >= NEEDED_PRECISION)
    return SameClassThreshold(
        float(thresholds[best]),
        float(precision[best]),
        float(recall[best]),
        float(f1[best]),
        float(thresholds[precise[-1]]) if len(precise) else None,
    )


def _some(vectors: Vectors, name: str) -> np.ndarray:
    array = as_vectors(vectors, name)
    if not len(array):
        raise ValueError(f"{name} has no rows")
    return array


def _paired(first: Vectors, second: Vectors, first_name: str, second_name: str) -> tuple[np.ndarray, np.ndarray]:
    one, other = _some(first, first_name), _some(second, second_name)
    if one.shape != other.shape:
        raise ValueError(f"{first_name} and {second_name} must pair up, given {list(one.shape)} and {list(other.shape)}")
    return one, other


def _row_blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The same rows of each, in float64, a block at a time."""
    for start in range(0, len(arrays[0]), COLUMNS):
        yield tuple(array[start : start + COLUMNS].astype(np.float64) for array in arrays)


def _pair_blocks(vectors: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield (row, column, dot products [A, B], which of them are pairs of a row and a later row, boolean [A, B]): each pair once."""
    for start in range(0, len(vectors), ROWS):
        rows = vectors[start : start + ROWS]
        for column in range(start, len(vectors), COLUMNS):
            block = rows @ vectors[column : column + COLUMNS].T
            later = np.arange(column, column + block.shape[1]) > np.arange(start, start + len(rows))[:, None]
            yield start, column, block, later
