"""What the base's embeddings say of the test pictures' labels: which their neighbours contradict, and which pictures it takes for one.

Shapes: N test images, d embedding. Search is exact up to EXACT pictures; beyond, it looks through the nearest of about 4·√N cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NEIGHBOURS, AGREE = 5, 4  # so many of the nearest pictures of one other class contradict a label that none of them has
SAME = 0.98  # cosine from which on the base hardly tells two pictures apart
EXACT, CELLS_SEARCHED = 20_000, 16


class Neighbours(NamedTuple):
    """The nearest other pictures of each."""

    rows: np.ndarray  # int64 [N, up to NEIGHBOURS], -1 where there is none
    cosines: np.ndarray  # float32, of the same shape


def contradicted(ids: Sequence[str], names: Sequence[str], labels: np.ndarray, near: Neighbours) -> list[dict[str, Any]]:
    """A row each (id, other, detail) of the pictures whose neighbours agree on another class, and have not one of the picture's own."""
    found = []
    for row, others in enumerate(near.rows):
        voting = others[others >= 0]
        votes = Counter(labels[voting].tolist())
        if not votes or labels[row] in votes:
            continue
        (label, count), *_ = votes.most_common(1)
        if count >= AGREE:
            first = next(int(each) for each in voting if labels[each] == label)
            detail = f"of its {len(voting)} nearest pictures {count} are of class {names[first]}, none of its own class {names[row]}"
            found.append({"id": ids[row], "other": ids[first], "detail": detail, "order": (-count, ids[row])})
    return sorted(found, key=lambda each: each["order"])


def taken_for_one(ids: Sequence[str], labels: np.ndarray, near: Neighbours) -> list[dict[str, Any]]:
    """Pairs of two classes that the base hardly tells apart, the most similar first."""
    pairs = {
        (min(row, int(other)), max(row, int(other))): float(cosine)
        for row, (other, cosine) in enumerate(zip(near.rows[:, 0], near.cosines[:, 0], strict=True))
        if other >= 0 and cosine >= SAME and labels[row] != labels[other]
    }
    return [
        {"id": ids[two], "other": ids[one], "detail": f"the base sees hardly a difference (cosine {cosine:.3f}) to {ids[one]}"}
        for (one, two), cosine in sorted(pairs.items(), key=lambda each: (-each[1], each[0]))
    ]


def neighbours(embeddings: np.ndarray) -> Neighbours:
    """Of unit-norm embeddings [N, d]."""
    import faiss

    count, d = embeddings.shape
    vectors = np.ascontiguousarray(embeddings, np.float32)
    wanted = min(NEIGHBOURS + 1, count)
    index: Any
    if count <= EXACT:
        index = faiss.IndexFlatIP(d)
    else:
        index = faiss.index_factory(d, f"IVF{int(4 * np.sqrt(count))},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.nprobe = CELLS_SEARCHED
    index.add(vectors)
    cosines, rows = index.search(vectors, wanted)
    if wanted == 1:
        return Neighbours(np.full((count, 1), -1), np.zeros((count, 1), np.float32))
    others = rows != np.arange(count)[:, None]
    others[others.all(axis=1), -1] = False  # of copies with one vector, a picture may find others before itself
    shape = (count, wanted - 1)
    return Neighbours(rows[others].reshape(shape), cosines[others].reshape(shape))
