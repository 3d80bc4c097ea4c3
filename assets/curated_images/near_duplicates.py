"""Pairs of pictures that look the same, by their fingerprints. Which of them stays, and what is said of them, is decided elsewhere.

Time grows with the pictures, not with their pairs. Pictures are compared only where they agree on some bits: in each of TABLES random
choices of about log2(N) bits they are sorted by these, and a picture meets at most NEIGHBOURS of those that have the same. Two that differ
in 32 of 256 bits meet with a probability of 0.97 among 200,000, of more among fewer; of many that are all alike each meets the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assets.curated_images.fingerprint import BYTES, VIEWS

BITS = 8 * BYTES
TABLES, NEIGHBOURS = 48, 24
TABLES_AT_ONCE = 8  # in memory
MORE_BITS, MOST_BITS = 2, 22  # than log2(N): about one picture in four has the same by chance
QUERIES_AT_ONCE = 32_768
MAX_COLOUR = 24.0  # levels of 255. The hash is of the grey picture: a red shirt and a blue one have the same
CELLS = 4  # a side, in which colours are compared


@dataclass(frozen=True)
class Pairs:
    """Arrays [P], in order of (query, distance, row)."""

    queries: np.ndarray  # int64
    rows: np.ndarray  # int64
    distances: np.ndarray  # int64, bits that differ, of 256


@dataclass(frozen=True)
class _Table:
    """The gallery by the chosen bits: rows of key k are rows[starts[k] : starts[k + 1]], in their order.

    A key is an index, not searched for: a search of sorted keys misses the processor's caches at every step.
    """

    chosen: np.ndarray
    starts: np.ndarray  # int32 [2 ** bits + 1]
    rows: np.ndarray  # int32


def near_pairs(queries: np.ndarray, gallery: np.ndarray, max_distance: int) -> Pairs:
    """Which row of the gallery looks like which query: uint8 [., VIEWS, BYTES] each. Pictures without a drawing look like none.

    Where `queries` is the very same array as `gallery`, a pair comes once, with the earlier picture as its row.
    """
    same = queries is gallery
    whole = _words(gallery[:, 0])
    found: list[np.ndarray] = [np.zeros((3, 0), np.int64)]
    drawn = np.flatnonzero(whole.any(axis=1))
    bits = int(np.clip(np.ceil(np.log2(max(2, len(drawn)))) + MORE_BITS, 10, MOST_BITS))
    chance = np.random.default_rng(0)
    choices = [chance.choice(BITS, bits, replace=False) for _ in range(TABLES)]
    for first in range(0, TABLES, TABLES_AT_ONCE):
        tables = [_table(whole, drawn, chosen) for chosen in choices[first : first + TABLES_AT_ONCE]]
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            block = queries[start : start + QUERIES_AT_ONCE]
            for view in range(VIEWS):
                words = _words(block[:, view])
                asking = np.flatnonzero(words.any(axis=1))
                columns = _columns(words[asking])
                for table in tables:
                    asked, met = _met(_keys(columns, table.chosen), table)
                    who = asking[asked]
                    distances = np.bitwise_count(words[who] ^ whole[met]).sum(axis=1, dtype=np.int64)
                    near = distances <= max_distance
                    if same:
                        near &= who + start != met
                    found.append(np.stack([who[near] + start, met[near], distances[near]]))
    return _once(np.concatenate(found, axis=1), same=same)


def alike_in_colour(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """bool [P] for two uint8 [P, 768], thumbnails of nearest.py: no cell's colour is another. Either may be brighter, or mirrored."""
    first, second = _cells(one), _cells(other)
    light = [np.maximum(each.mean(axis=(1, 2, 3), keepdims=True), 1) for each in (first, second)]
    first, second = (each * (light[0] + light[1]) / 2 / own for each, own in zip((first, second), light, strict=True))
    first, second = (each - each.mean(axis=-1, keepdims=True) for each in (first, second))
    moved = [np.abs(first - each).mean(axis=-1).max(axis=(1, 2)) for each in (second, second[:, :, ::-1])]
    return np.minimum(*moved) <= MAX_COLOUR


def _cells(thumbnails: np.ndarray) -> np.ndarray:
    """float32 [P, CELLS, CELLS, 3]: mean colours."""
    side = int(np.sqrt(thumbnails.shape[1] // 3))
    step = side // CELLS
    return thumbnails.reshape(-1, CELLS, step, CELLS, step, 3).astype(np.float32).mean(axis=(2, 4))


def _words(prints: np.ndarray) -> np.ndarray:
    """uint64 [N, BYTES / 8] of uint8 [N, BYTES]."""
    return np.ascontiguousarray(prints).view(np.uint64)


def _columns(words: np.ndarray) -> np.ndarray:
    """uint8 [BYTES, N] of uint64 [N, BYTES / 8]: each byte of all pictures side by side."""
    return np.ascontiguousarray(words.view(np.uint8).T)


def _keys(columns: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """uint32 [N]: the chosen bits as one number."""
    keys = np.zeros(columns.shape[1], np.uint32)
    for bit in chosen.tolist():
        keys <<= 1
        keys |= (columns[bit >> 3] >> (7 - bit % 8)) & 1
    return keys


def _table(whole: np.ndarray, rows: np.ndarray, chosen: np.ndarray) -> _Table:
    keys = _keys(_columns(whole[rows]), chosen)
    starts = np.zeros((1 << len(chosen)) + 1, np.int32)
    np.cumsum(np.bincount(keys, minlength=len(starts) - 1), out=starts[1:])
    return _Table(chosen, starts, rows[np.argsort(keys, kind="stable")].astype(np.int32))


def _met(asked: np.ndarray, table: _Table) -> tuple[np.ndarray, np.ndarray]:
    """(query, row) of equal keys, at most NEIGHBOURS rows a query, the first ones."""
    low = table.starts[asked]
    counts = np.minimum(table.starts[asked + 1] - low, NEIGHBOURS)
    some = np.flatnonzero(counts)
    low, counts = low[some], counts[some]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(some, counts), table.rows[np.repeat(low, counts) + within]


def _once(found: np.ndarray, *, same: bool) -> Pairs:
    """Each pair once, with its least distance."""
    queries, rows, distances = found
    if same:
        queries, rows = np.maximum(queries, rows), np.minimum(queries, rows)
    order = np.lexsort((distances, rows, queries))
    queries, rows, distances = queries[order], rows[order], distances[order]
    first = np.ones(len(queries), bool)
    first[1:] = (queries[1:] != queries[:-1]) | (rows[1:] != rows[:-1])
    queries, rows, distances = queries[first], rows[first], distances[first]
    order = np.lexsort((rows, distances, queries))
    return Pairs(queries[order], rows[order], distances[order])
