"""How near a caption must be to a picture to be taken for one of it, in a measure that means the same for every base.

The measure is the cosine's distance from the mean of pairs that do not belong together (a training picture and a caption that is not its
own), in their standard deviations. Cosines themselves differ from base to base: the authors' limit of 0.27 is one for OpenAI's CLIP.

Shapes: N images, T captions, d embedding, P pairs of an image and a caption of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROWS_AT_ONCE = 1024  # of embeddings in double precision, and of the similarity matrix


@dataclass(frozen=True)
class Unrelated:
    """The cosines of images and captions that are not their own."""

    mean: float
    deviation: float  # standard

    def limit(self, min_z: float) -> float:
        """The cosine that is so many standard deviations above the mean."""
        return self.mean + min_z * self.deviation


def unrelated(images: np.ndarray, texts: np.ndarray, own: Sequence[Sequence[int]]) -> Unrelated:
    """Of all pairs of images [N, d] and texts [T, d] but those in `own`, the caption numbers of each image; exactly, without N × T cosines.

    The sum over all pairs is Σz · Σt, that of squares the product of Σzzᵀ and Σttᵀ, entry by entry. An embedding that is not finite counts
    as zeros. Where there is no such pair, no cosine reaches any limit.
    """
    (of_images, squares_of_images), (of_texts, squares_of_texts) = _moments(images), _moments(texts)
    pairs = _finite(np.concatenate([np.zeros(0), *own_similarities(images, texts, own)]))
    count = len(images) * len(texts) - len(pairs)
    if count <= 0:
        return Unrelated(np.inf, 0.0)
    mean = (of_images @ of_texts - pairs.sum()) / count
    square = ((squares_of_images * squares_of_texts).sum() - np.square(pairs).sum()) / count
    return Unrelated(float(mean), float(np.sqrt(max(square - mean**2, 0.0))))


def own_similarities(images: np.ndarray, texts: np.ndarray, numbers: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """For every image [N, d] its cosines with the captions of these numbers."""
    return [texts[np.asarray(each, np.int64)] @ images[row] for row, each in enumerate(numbers)]


@dataclass(frozen=True)
class Recovery:
    """How well a limit finds again the captions that are known to be an image's own."""

    precision: float  # of the captions that reach the limit, the share that are the image's own
    recall: float  # of its own captions, the share that reach the limit

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / (self.precision + self.recall) if self.recall else 0.0


def recovery(
    images: np.ndarray, texts: np.ndarray, own: Sequence[Sequence[int]], findable: np.ndarray, limits: Sequence[float]
) -> list[Recovery]:
    """For each of the `limits`, which ascend, as if nobody had said which captions are an image's own.

    findable bool [T]: the captions that may be found at all.
    """
    ascending = np.asarray(limits, np.float32)
    reach, reach_own = np.zeros(len(limits)), np.zeros(len(limits))
    known = 0
    for start in range(0, len(images), ROWS_AT_ONCE):
        block = np.nan_to_num(images[start : start + ROWS_AT_ONCE] @ texts.T, nan=-2.0)
        mine = np.zeros(block.shape, bool)
        for row, each in enumerate(own[start : start + ROWS_AT_ONCE]):
            mine[row, list(each)] = True
        known += int(mine[:, findable].sum())
        reach += _reaching(block[:, findable], ascending)
        reach_own += _reaching(block[mine & findable], ascending)
    return [
        Recovery(float(own_ones / max(every, 1)), float(own_ones / max(known, 1))) for every, own_ones in zip(reach, reach_own, strict=True)
    ]


def _reaching(cosines: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """How many of the cosines are at least each limit."""
    counts = np.bincount(np.searchsorted(ascending, cosines.ravel(), side="right"), minlength=len(ascending) + 1)
    return counts[::-1].cumsum()[::-1][1:]


def _moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Σv [d], Σvvᵀ [d, d]) in double precision."""
    width = vectors.shape[1]
    total, squares = np.zeros(width), np.zeros((width, width))
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        block = _finite(vectors[start : start + ROWS_AT_ONCE])
        total += block.sum(axis=0)
        squares += block.T @ block
    return total, squares


def _finite(values: np.ndarray) -> np.ndarray:
    """In double precision, 0 for what is not finite."""
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
