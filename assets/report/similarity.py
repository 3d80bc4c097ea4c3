"""How similar pairs are in one recipe's space: images of one class, images of two classes, an image and its own caption.

Shapes: N images, C classes, T captions, d embedding; similarities are cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PAIRS = 100_000  # of each kind, drawn at random where there are more
CHUNK = 8192


@dataclass(frozen=True)
class Similarities:
    same_class: np.ndarray
    other_class: np.ndarray
    image_caption: np.ndarray

    @property
    def separation(self) -> float | None:
        """Percent of draws in which a pair of one class is more similar than a pair of two; equal counts half. None without pairs."""
        if not len(self.same_class) or not len(self.other_class):
            return None
        other = np.sort(self.other_class)
        below = np.searchsorted(other, self.same_class, "left") + np.searchsorted(other, self.same_class, "right")
        return float(100 * below.mean() / 2 / len(other))


@dataclass(frozen=True)
class Pairs:
    """Which pairs are compared, [P, 2] of rows each; the same for every recipe."""

    same_class: np.ndarray
    other_class: np.ndarray
    image_caption: np.ndarray  # image row, position of the caption


def draw_pairs(labels: np.ndarray, captions_of: Sequence[Sequence[str]], captions: Sequence[str], seed: int) -> Pairs:
    """Pairs of images by label [N], and every image with its own captions (positions in captions [T])."""
    generator = np.random.default_rng([seed, 3])
    _, codes = np.unique(labels.astype(str), return_inverse=True)
    other = generator.integers(len(codes), size=(2 * PAIRS, 2))
    other = other[codes[other[:, 0]] != codes[other[:, 1]]]
    number = {caption: position for position, caption in enumerate(captions)}
    own = [(row, number[caption]) for row, texts in enumerate(captions_of) for caption in texts]
    return Pairs(_same_class(codes, generator), other[:PAIRS], _at_most(np.array(own, np.int64).reshape(-1, 2), generator))


def _same_class(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Every pair of rows that share a code, or PAIRS of them drawn with replacement."""
    by_class, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts, pairs = np.cumsum(sizes) - sizes, sizes * (sizes - 1) // 2
    if pairs.sum() <= PAIRS:
        rows = [by_class[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        return np.concatenate([np.stack([each[part] for part in np.triu_indices(len(each), 1)], axis=1) for each in rows])
    drawn = generator.choice(len(sizes), PAIRS, p=pairs / pairs.sum())
    first = generator.integers(sizes[drawn])
    second = generator.integers(sizes[drawn] - 1)
    second += second >= first
    return np.stack([by_class[starts[drawn] + first], by_class[starts[drawn] + second]], axis=1)


def _at_most(pairs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return pairs if len(pairs) <= PAIRS else pairs[np.sort(generator.choice(len(pairs), PAIRS, replace=False))]


def similarities(images: np.ndarray, captions: np.ndarray, pairs: Pairs) -> Similarities:
    """Cosines of the pairs, for unit-norm images [N, d] and captions [T, d]."""
    return Similarities(
        _cosines(images, images, pairs.same_class),
        _cosines(images, images, pairs.other_class),
        _cosines(images, captions, pairs.image_caption),
    )


def _cosines(left: np.ndarray, right: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), CHUNK):
        first, second = pairs[start : start + CHUNK].T
        found[start : start + CHUNK] = np.einsum("pd,pd->p", left[first], right[second])
    return found
