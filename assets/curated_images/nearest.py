"""How like a training picture each test picture is, by thumbnails of their pixels: no model, which would be judged by its own view.

Shapes: Q and G pictures, thumbnails uint8 [., 16·16·3]. `correlation` of two thumbnails is over their 768 values, each colour centred by
itself, so that a coloured background makes nothing alike; a picture of one colour correlates 0 with everything. `difference` is their
mean absolute difference, black to white being 1. Both are exact: every pair is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

SIDE = 16  # pixels of a thumbnail
VALUES = 3 * SIDE * SIDE
NEAR_CORRELATION = 0.98  # with a small difference alone, thin lines on white would all be alike
GALLERY_BLOCK, QUERY_BLOCK = 8_192, 256  # rows held as floating-point numbers; every pair of two blocks may be alike
PAIRS = 256  # whose differences are computed at once

NEAREST_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the test picture
        pa.field("nearest", pa.string(), nullable=False),  # id of the training picture that correlates most with it
        pa.field("correlation", pa.float32(), nullable=False),
        pa.field("difference", pa.float32(), nullable=False),
    ]
)


class Thumbnails:
    """Rows of a file of thumbnails, read as they are asked for: uint8 [N, 768], as an array that does not fit into memory."""

    def __init__(self, file: Path, rows: np.ndarray) -> None:
        """`rows`: int64 [N], ascending."""
        self.file = file
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        rows = self.rows[wanted]
        if not len(rows):
            return np.zeros((0, VALUES), np.uint8)
        if isinstance(wanted, slice):  # side by side but for those of other splits
            first, last = int(rows[0]), int(rows[-1])
            read = np.fromfile(self.file, np.uint8, (last - first + 1) * VALUES, offset=first * VALUES)
            return read.reshape(-1, VALUES)[rows - first]
        return np.stack([np.fromfile(self.file, np.uint8, VALUES, offset=int(row) * VALUES) for row in rows])


Gallery = np.ndarray | Thumbnails


def thumbnail(picture: Image.Image) -> bytes:
    """An RGB picture squeezed to 16 × 16 pixels: nearly the same for its copies of another size or file format."""
    return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0).tobytes()


def near_identical(queries: Gallery, gallery: Gallery, min_difference: float) -> dict[int, int]:
    """Query → the gallery picture of which it is a copy as far as anyone can see, the most correlated one; only queries that have one.

    Copies differ by less than `min_difference` and correlate more than 0.98.
    """
    found: dict[int, tuple[float, int]] = {}
    for start, index in _indices(gallery):
        for first, vectors in _blocks(queries, QUERY_BLOCK):
            limits, correlations, rows = index.range_search(vectors, NEAR_CORRELATION)
            for query, (low, high) in enumerate(pairwise(limits.astype(np.int64).tolist()), first):
                near, by = start + rows[low:high], -correlations[low:high]
                order = np.lexsort((near, by))
                # among pictures that are all alike, such as the frames of a film, a piece is enough: memory stays bounded
                for piece in (order[at : at + PAIRS] for at in range(0, len(order), PAIRS)):
                    small = _differences(queries[query : query + 1], gallery[near[piece]]) < min_difference
                    if small.any():
                        best = piece[small.argmax()]
                        candidate = (float(by[best]), int(near[best]))
                        found[query] = min(found.get(query, candidate), candidate)
                        break
    return {query: row for query, (_, row) in sorted(found.items())}


def nearest(queries: Gallery, gallery: Gallery) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each query: the most correlated row of the gallery, int64 [Q]; their correlation and their difference, float32 [Q]."""
    best = np.full(len(queries), -np.inf, np.float32)
    rows = np.zeros(len(queries), np.int64)
    for start, index in _indices(gallery):
        for first, vectors in _blocks(queries, QUERY_BLOCK):
            correlations, found = (each[:, 0] for each in index.search(vectors, 1))
            of_block = slice(first, first + len(vectors))
            better = correlations > best[of_block]
            best[of_block][better] = correlations[better]
            rows[of_block][better] = start + found[better]
    differences = [
        _differences(queries[first : first + QUERY_BLOCK], gallery[rows[first : first + QUERY_BLOCK]]) for first in _starts(queries)
    ]
    return rows, np.round(best, 4), np.round(np.concatenate(differences), 4).astype(np.float32)


def _indices(gallery: Gallery) -> Iterator[tuple[int, Any]]:
    import faiss

    for start, vectors in _blocks(gallery, GALLERY_BLOCK):
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        yield start, index


def _blocks(thumbnails: Gallery, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Centred by colour and of unit norm, so that a dot product is a correlation; zero for a picture of one colour."""
    for start in range(0, len(thumbnails), size):
        colours = thumbnails[start : start + size].astype(np.float32).reshape(-1, SIDE * SIDE, 3)
        values = (colours - colours.mean(axis=1, keepdims=True)).reshape(-1, VALUES)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        yield start, np.where(norms > 1, values / np.maximum(norms, 1), np.float32(0))


def _differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.int16) - other).mean(axis=1) / 255


def _starts(queries: Gallery) -> range:
    return range(0, max(1, len(queries)), QUERY_BLOCK)
