"""Similarities of queries to a gallery, a bounded block of queries at a time. What is made of them is the measures' concern.

Shapes: Q queries, G gallery items, B queries of one block, d embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch  # tensors are accepted, torch itself is not needed

Vectors: TypeAlias = "np.ndarray | torch.Tensor"
Mask: TypeAlias = "np.ndarray | torch.Tensor | Callable[[int, int], np.ndarray | torch.Tensor]"

BLOCK_ROWS = 256  # more do not make the product faster
BLOCK_ITEMS = 2**26  # similarities held at once, 256 MiB in fp32: bounds a block where the gallery is large
CHECKED_ITEMS = 2**22  # numbers looked at at once


def similarity_blocks(query: Vectors, gallery: Vectors, exclude: Mask | None = None) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (start, stop, dot products [B, G] of queries start..stop), excluded items at −inf; a block lasts until the next is asked for.

    The product is fp32, or float64 where either is given so (or as integers); computed on the CPU. Gallery rows that are equal get the
    same similarity to the last bit, wherever they stand: a matrix product alone does not promise that, and ties would be lost.
    """
    query, gallery = as_vectors(query, "query"), as_vectors(gallery, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query has {query.shape[1]} dimensions, gallery {gallery.shape[1]}; they must share one space")
    precision = np.result_type(query, gallery)
    query, gallery = query.astype(precision, copy=False), gallery.astype(precision, copy=False)
    largest = (max(float(vectors.max(initial=0)), -float(vectors.min(initial=0))) for vectors in (query, gallery))
    if math.prod(largest) * query.shape[1] > float(np.finfo(precision).max):
        raise ValueError("the vectors are so long that their dot products overflow; normalise them first")
    repeated, first = _repeated_rows(gallery)
    rows = max(1, min(BLOCK_ROWS, BLOCK_ITEMS // max(1, len(gallery))))
    products = np.empty((min(rows, len(query)), len(gallery)), precision)
    for start in range(0, len(query), rows):
        stop = min(start + rows, len(query))
        block = np.matmul(query[start:stop], gallery.T, out=products[: stop - start])
        if len(repeated):
            for row in block:
                row[repeated] = row[first]
        if exclude is not None:
            np.copyto(block, -np.inf, where=mask_block(exclude, start, stop, (len(query), len(gallery)), "exclude"))
        yield start, stop, block


def mask_block(mask: Mask, start: int, stop: int, shape: tuple[int, int], name: str) -> np.ndarray:
    """Rows start..stop of a boolean [Q, G] array, or of a function (start, stop) → boolean [stop − start, G]."""
    if callable(mask):
        block, expected = as_array(mask(start, stop)), (stop - start, shape[1])
    else:
        block, expected = as_array(mask), shape
    if block.dtype != bool or block.shape != expected:
        raise ValueError(f"{name} must be boolean {list(expected)}, given {block.dtype} {list(block.shape)}")
    return block if callable(mask) else block[start:stop]


def exclude_self(count: int) -> Callable[[int, int], np.ndarray]:
    """The mask [count, count] that takes each query itself out of the gallery, by index, where the two are the same rows."""

    def own(start: int, stop: int) -> np.ndarray:
        block = np.zeros((stop - start, count), bool)
        block[np.arange(stop - start), np.arange(start, stop)] = True
        return block

    return own


def as_vectors(vectors: Vectors, name: str) -> np.ndarray:
    """A finite array [rows, d] in fp32 or better; integers become float64."""
    array = as_array(vectors)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must be [rows, dimensions], given shape {list(array.shape)}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers, given {array.dtype}")
    array = array.astype(np.result_type(array.dtype, np.float32) if array.dtype.kind == "f" else np.float64, copy=False)
    rows = max(1, CHECKED_ITEMS // array.shape[1])
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            raise ValueError(f"{name} row {start + int(np.argmin(finite.all(axis=1)))} holds NaN or infinity")
    return array


def as_array(values: Any) -> np.ndarray:
    """A tensor of any device, or anything array-like, as numpy; bfloat16, which numpy lacks, as fp32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
        return values.numpy()
    return np.asarray(values)


def _repeated_rows(gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [D] that equal an earlier row, and the first such row of each [D]."""
    keys = np.fromiter((hash((row + 0.0).tobytes()) for row in gallery), np.int64, len(gallery))  # + 0.0: −0 equals 0
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[group] != np.arange(len(gallery)))
    first = first[group][repeated]
    if len(repeated):
        equal = np.fromiter((np.array_equal(gallery[a], gallery[b]) for a, b in zip(repeated, first, strict=True)), bool, len(repeated))
        repeated, first = repeated[equal], first[equal]
    return repeated, first
