"""How like a training picture each test picture is, by thumbnails of their pixels: no model, which would be judged by its own view.

Shapes: Q and G pictures, thumbnails uint8 [., 16·16·3]. `correlation` of two thumbnails is over their 768 values, each colour centred by
itself, so that a coloured background makes nothing alike; a picture of one colour correlates 0 with everything. `difference` is their
mean absolute difference, black to white being 1. Every pair is compared, but for those that an earlier run has compared: what was
found is kept under the name `keep`, by the thumbnails' contents. What is found depends on the thumbnails alone, never on what was kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assets.curated_images.thumbnails import SIDE, VALUES, Gallery
from assets.imports import imported_files
from assets.kept import opened

NEAR_CORRELATION = 0.98  # with a small difference alone, thin lines on white would all be alike
GALLERY_BLOCK, QUERY_BLOCK = 8_192, 256  # rows held as floating-point numbers; every pair of two blocks may be alike
PAIRS = 256  # that are computed exactly at once
SLACK = 2e-5  # of a correlation in single precision, which only chooses the pairs that are computed exactly
DIGEST = 16  # bytes
COLOURS = np.tile(np.eye(3, dtype=np.float32), (SIDE * SIDE, 1))  # [768, 3]: which colour each value is of
STATE = b"state"  # what is kept under: all that the last run found

NEAREST_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the test picture
        pa.field("nearest", pa.string(), nullable=False),  # id of the training picture that correlates most with it
        pa.field("correlation", pa.float32(), nullable=False),
        pa.field("difference", pa.float32(), nullable=False),
    ]
)

Match = tuple[float, bytes]  # correlation, and digest of the gallery's thumbnail; of equal correlations the smaller digest


@dataclass(frozen=True)
class Rule:
    """A match correlates more than `limit`, and differs by less than `max_difference` where that is given."""

    limit: float
    max_difference: float | None


def near_identical(queries: Gallery, gallery: Gallery, min_difference: float, keep: str | None = None) -> dict[int, int]:
    """Query → the gallery picture of which it is a copy as far as anyone can see, the most correlated one; only queries that have one.

    Copies differ by less than `min_difference` and correlate more than 0.98.
    """
    matches = _matches(queries, gallery, Rule(NEAR_CORRELATION, min_difference), keep)
    return {query: row for query, (_, row) in matches.items()}


def nearest(queries: Gallery, gallery: Gallery, keep: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each query: the most correlated row of the gallery, int64 [Q]; their correlation and their difference, float32 [Q]."""
    matches = _matches(queries, gallery, Rule(-np.inf, None), keep)
    rows = np.array([matches[query][1] for query in range(len(queries))], np.int64)
    correlations = np.array([matches[query][0] for query in range(len(queries))], np.float32)
    differences = [
        _differences(queries[first : first + QUERY_BLOCK], gallery[rows[first : first + QUERY_BLOCK]]) for first in _starts(queries)
    ]
    return rows, np.round(correlations, 4), np.round(np.concatenate(differences), 4).astype(np.float32)


def _matches(queries: Gallery, gallery: Gallery, rule: Rule, keep: str | None) -> dict[int, tuple[float, int]]:
    """Query → (correlation, row of the gallery) of its best match; of equal thumbnails the first row."""
    asked, searched = _digests(queries), _digests(gallery)
    row_of = {digest: row for row, digest in reversed(list(enumerate(searched)))}
    first_of = {digest: row for row, digest in reversed(list(enumerate(asked)))}
    found = (
        _compare(queries, first_of, gallery, row_of, rule)
        if keep is None
        else _compare_what_is_new(queries, first_of, gallery, row_of, rule, keep)
    )
    return {query: (match[0], row_of[match[1]]) for query, digest in enumerate(asked) if (match := found[digest]) is not None}


def _compare_what_is_new(
    queries: Gallery, asked: Mapping[bytes, int], gallery: Gallery, searched: Mapping[bytes, int], rule: Rule, keep: str
) -> dict[bytes, Match | None]:
    """`_compare`, by what the last run found: a query known then is compared with what came since, unless its match is gone."""
    with opened(keep, {"limit": str(rule.limit), "max_difference": rule.max_difference}, imported_files(__name__)) as store:
        seen, known = _unpacked(store.get([STATE]).get(STATE, b""))
        old = {query: match for query in asked if query in known and ((match := known[query]) is None or match[1] in searched)}
        came = {digest: row for digest, row in searched.items() if digest not in seen}
        found = _compare(queries, {query: row for query, row in asked.items() if query not in old}, gallery, searched, rule)
        found |= _compare(queries, {query: asked[query] for query in old}, gallery, came, rule, old)
        if came or len(seen) != len(searched) or found != known:
            store.replace({STATE: _packed(searched, found)})
    return {query: found[query] for query in asked}


def _compare(
    queries: Gallery,
    asked: Mapping[bytes, int],
    gallery: Gallery,
    searched: Mapping[bytes, int],
    rule: Rule,
    known: Mapping[bytes, Match | None] | None = None,
) -> dict[bytes, Match | None]:
    """The best match of each of `asked` among `searched`, both digest → row, and what is `known` of it."""
    found: dict[bytes, Match | None] = dict(known) if known is not None else dict.fromkeys(asked)
    if not asked or not searched:
        return found
    names, rows = list(asked), np.fromiter(asked.values(), np.int64, len(asked))
    order = sorted(searched, key=searched.__getitem__)  # by row, so that neighbours in the file are read together
    first = min(searched)
    for start in range(0, len(order), GALLERY_BLOCK):
        digests = order[start : start + GALLERY_BLOCK]
        others = gallery[np.array([searched[digest] for digest in digests], np.int64)]
        turned = _unit(others).T
        for begin in range(0, len(names), QUERY_BLOCK):
            ours = queries[rows[begin : begin + QUERY_BLOCK]]
            vectors = _unit(ours)
            near = vectors @ turned
            own = names[begin : begin + QUERY_BLOCK]
            enough = np.array([rule.limit if (match := found[name]) is None else match[0] for name in own])
            for number in np.flatnonzero(near.max(axis=1) > enough - SLACK):
                name = own[number]
                if not vectors[number].any():  # 0 with everything
                    best: Match | None = (0.0, first)
                else:
                    best = _best(ours[number], near[number], others, digests, rule)
                found[name] = _better(found[name], best)
    return found


def _best(one: np.ndarray, near: np.ndarray, others: np.ndarray, digests: list[bytes], rule: Rule) -> Match | None:
    """The best match of a thumbnail; near [G]: its correlations in single precision."""
    floor = near.max() if rule.max_difference is None else rule.limit  # the most correlated one may differ too much
    chosen = np.flatnonzero(near >= floor - SLACK)
    chosen = chosen[np.argsort(-near[chosen], kind="stable")]
    found: Match | None = None
    for start in range(0, len(chosen), PAIRS):
        piece = chosen[start : start + PAIRS]
        if found is not None and near[piece[0]] < found[0] - SLACK:  # all that follow correlate less
            break
        correlations = _correlations(one, others[piece])
        fits = correlations > rule.limit
        if rule.max_difference is not None:
            fits &= _differences(one[None], others[piece]) < rule.max_difference
        for number in np.flatnonzero(fits & (correlations == correlations[fits].max(initial=-np.inf))):
            found = _better(found, (float(correlations[number]), digests[piece[number]]))
    return found


def _better(one: Match | None, other: Match | None) -> Match | None:
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda match: (-match[0], match[1]))


def _correlations(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 [G], from whole numbers: the same for a pair, whatever it is computed beside."""
    ours, theirs = (each.reshape(-1, SIDE * SIDE, 3).astype(np.int64) for each in (one, others))
    our_sums, their_sums = ours.sum(axis=1), theirs.sum(axis=1)
    together = (SIDE * SIDE * (ours * theirs).sum(axis=1) - our_sums * their_sums).sum(axis=1)
    own = [(SIDE * SIDE * (each * each).sum(axis=1) - sums * sums).sum(axis=1) for each, sums in ((ours, our_sums), (theirs, their_sums))]
    flat = (own[0] <= SIDE * SIDE) | (own[1] <= SIDE * SIDE)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flat, 0.0, together / np.sqrt(own[0].astype(np.float64) * own[1]))


def _unit(thumbnails: np.ndarray) -> np.ndarray:
    """Centred by colour and of unit norm, so that a dot product is a correlation; zero for a picture of one colour."""
    values = thumbnails.reshape(-1, VALUES).astype(np.float32)
    values -= values @ (COLOURS / (SIDE * SIDE)) @ COLOURS.T  # a product is faster than a mean over every third value
    norms = np.sqrt(np.einsum("nv,nv->n", values, values))[:, None]
    return np.where(norms > 1, values / np.maximum(norms, 1), np.float32(0))


def _differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.int16) - other).mean(axis=1) / 255


def _digests(thumbnails: Gallery) -> list[bytes]:
    return [
        hashlib.blake2b(row.tobytes(), digest_size=DIGEST).digest()
        for start in _starts(thumbnails)
        for row in thumbnails[start : start + QUERY_BLOCK]
    ]


def _starts(queries: Gallery) -> range:
    return range(0, max(1, len(queries)), QUERY_BLOCK)


# a byte more than a digest: numpy drops zeros at the end
_RECORD = np.dtype([("query", f"S{DIGEST + 1}"), ("match", f"S{DIGEST + 1}"), ("correlation", "<f8")])


def _packed(searched: Mapping[bytes, int], found: Mapping[bytes, Match | None]) -> bytes:
    """The digests of the gallery, and of every query its match."""
    rows = [(query + b"+", match[1] + b"+" if match else b"", match[0] if match else 0.0) for query, match in found.items()]
    records = np.array(rows, _RECORD)
    return len(searched).to_bytes(8, "little") + b"".join(searched) + records.tobytes()


def _unpacked(packed: bytes) -> tuple[set[bytes], dict[bytes, Match | None]]:
    if not packed:
        return set(), {}
    end = 8 + DIGEST * int.from_bytes(packed[:8], "little")
    seen = {packed[start : start + DIGEST] for start in range(8, end, DIGEST)}
    rows: list[tuple[bytes, bytes, float]] = np.frombuffer(packed[end:], _RECORD).tolist()
    return seen, {query[:DIGEST]: (correlation, match[:DIGEST]) if match else None for query, match, correlation in rows}
