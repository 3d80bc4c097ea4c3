"""Which captions an image gets: its own, and the most similar others of the corpus, at most one per cluster.

Shapes: N images, T captions, d embedding, B images of a block, M candidates of each image.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from assets.engine import HERE, Engine, Work

ROWS_AT_ONCE = 1024  # of the similarity matrix …
COLUMNS_AT_ONCE = 2**16  # … and its columns: 256 MiB in fp32
GROWTH = 4  # times as many candidates where the first were too few


def assign_captions(
    images: np.ndarray,
    texts: np.ndarray,
    clusters: np.ndarray,
    own: list[list[int]],
    findable: np.ndarray,
    *,
    top_k: int,
    min_similarity: float,
    engine: Engine = HERE,
) -> list[list[int]]:
    """Caption numbers for every image: its `own` first, then up to `top_k` found ones, the most similar first.

    images [N, d] and texts [T, d] unit norm, clusters int64 [T], findable bool [T]: an image has one that is not findable only as its own.
    A found caption has cosine ≥ min_similarity and a cluster that no caption before it has; equal cosines go by caption number.
    """
    if not len(texts):
        return [list(each) for each in own]
    per_cluster = -(-len(texts) // len(np.unique(clusters)))
    few = 2 * per_cluster * (top_k + max(map(len, own), default=0))  # enough for most images
    corpus = _Corpus(texts, clusters, findable, few)
    pieces = (
        zip(images[start : start + ROWS_AT_ONCE], own[start : start + ROWS_AT_ONCE], strict=True)
        for start in range(0, len(images), ROWS_AT_ONCE)
    )
    return [each for found in engine.map(_Assigner(top_k, min_similarity), pieces, corpus) for each in found]


@dataclass(frozen=True)
class _Corpus:
    """What all images are compared with."""

    texts: np.ndarray
    clusters: np.ndarray
    findable: np.ndarray
    few: int  # candidates that are enough for most images


@dataclass(frozen=True)
class _Assigner:
    """A worker that assigns the captions of a block of images."""

    top_k: int
    min_similarity: float

    def opened(self) -> AbstractContextManager[Work]:
        return nullcontext(self._assigned)

    def _assigned(self, corpus: _Corpus, pairs: Iterable[tuple[np.ndarray, list[int]]]) -> list[list[int]]:
        """Of images with the captions of their own."""
        images, owned = zip(*pairs, strict=True)
        block, clusters = np.stack(images), corpus.clusters
        found: dict[int, list[int]] = {}
        most = corpus.few
        while len(found) < len(block):
            open_rows = [row for row in range(len(block)) if row not in found]
            captions, cosines, beyond = _nearest(block, corpus.texts, corpus.findable, most, open_rows)
            for row, numbers, values, limit in zip(open_rows, captions, cosines, beyond, strict=True):
                certain = (values > limit) & (values >= self.min_similarity)
                taken = {int(clusters[caption]) for caption in owned[row]}
                chosen = _distinct(numbers[certain], clusters, taken, self.top_k)
                if len(chosen) == self.top_k or not limit >= self.min_similarity:  # whatever is beyond comes later, or not at all
                    found[row] = chosen
            most *= GROWTH
        return [list(owned[row]) + found[row] for row in range(len(block))]


def _nearest(
    block: np.ndarray, texts: np.ndarray, findable: np.ndarray, most: int, rows: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The captions nearest to some `rows` of a block of images [B, d]: numbers int64 [rows, M], in order, and their cosines [rows, M].

    Also [rows]: the highest cosine that a caption which is not among them can have, −inf where all are. At least `most` candidates, or all.
    The cosines are always those of the whole block: a matrix product of fewer rows may differ in the last bit.
    """
    numbers, values, beyond = [], [], np.full(len(rows), -np.inf, np.float32)
    for first in range(0, len(texts), COLUMNS_AT_ONCE):
        cosines = (block @ texts[first : first + COLUMNS_AT_ONCE].T)[rows]
        # not findable, or of an embedding that is not finite, which numpy would rank first
        np.copyto(cosines, -np.inf, where=np.isnan(cosines) | ~findable[first : first + COLUMNS_AT_ONCE])
        width = cosines.shape[1]
        if most < width:
            nearest = np.sort(np.argpartition(cosines, width - most, axis=1)[:, width - most :], axis=1)
            cosines = np.take_along_axis(cosines, nearest, axis=1)
            beyond = np.maximum(beyond, cosines.min(axis=1))
        else:
            nearest = np.broadcast_to(np.arange(width), cosines.shape)
        numbers.append(nearest + first)
        values.append(cosines)
    candidates, similar = np.concatenate(numbers, axis=1), np.concatenate(values, axis=1)
    order = np.argsort(-similar, axis=1, kind="stable")  # candidates ascend, so equal cosines go by caption number
    return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(similar, order, axis=1), beyond


def _distinct(captions: np.ndarray, clusters: np.ndarray, taken: set[int], top_k: int) -> list[int]:
    """The first `top_k` captions of different clusters, none of them `taken`."""
    chosen: list[int] = []
    for caption, cluster in zip(captions.tolist(), clusters[captions].tolist(), strict=True):
        if len(chosen) == top_k:
            break
        if cluster not in taken:
            taken.add(cluster)
            chosen.append(caption)
    return chosen
