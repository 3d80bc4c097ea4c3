"""Which queries the page shows and what they find: drawn by seed or the worst, ranked by exact search. Drawing is elsewhere.

Shapes: N images, C classes, d embedding. A space is a recipe's unit-norm embeddings, by recipe. Rows are positions in test order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hit:
    row: int
    right: bool
    similarity: float


@dataclass(frozen=True)
class Answer:
    """What one query finds: its first hits, and the rank of the first right one (from 1; None where nothing is right)."""

    hits: list[Hit]
    first_right: int | None

    @property
    def right(self) -> int:
        return sum(hit.right for hit in self.hits)


@dataclass(frozen=True)
class Query:
    """A test image (its row) or a class name (row None), and what each recipe answers."""

    row: int | None
    name: str
    answers: dict[str, Answer]

    @property
    def rows(self) -> list[int]:
        """Every test image that showing the query needs."""
        return ([] if self.row is None else [self.row]) + [hit.row for found in self.answers.values() for hit in found.hits]


def ask_images(rows: Sequence[int], images: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str], k: int) -> list[Query]:
    """Test images as queries among all others, in the image spaces [N, d]; right is the same label [N]."""
    return [
        Query(row, names[row], {recipe: answer(space[row], space, labels == labels[row], k, row) for recipe, space in images.items()})
        for row in rows
    ]


def ask_texts(
    positions: Sequence[int],
    texts: Mapping[str, np.ndarray],
    images: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    names: Sequence[str],
    k: int,
) -> list[Query]:
    """Class names as queries: positions in class_names [C] and texts [C, d]. Right is an image of any class of that name (names [N])."""
    image_names = np.array(names, dtype=object)
    queries = []
    for position in positions:
        right = image_names == class_names[position]
        answers = {recipe: answer(texts[recipe][position], space, right, k, None) for recipe, space in images.items()}
        queries.append(Query(None, class_names[position], answers))
    return queries


def answer(query: np.ndarray, images: np.ndarray, relevant: np.ndarray, k: int, exclude: int | None) -> Answer:
    """Rank images [N, d] by their dot product with a query [d]; ties by row. `relevant` is bool [N]; row `exclude` is left out."""
    similarities = np.asarray(images, np.float32) @ np.asarray(query, np.float32)
    order = np.argsort(-similarities, kind="stable")
    if exclude is not None:
        order = order[order != exclude]
    right = relevant[order]
    first = int(right.argmax()) + 1 if right.any() else None
    return Answer([Hit(int(row), bool(relevant[row]), float(similarities[row])) for row in order[:k]], first)


def draw_images(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Rows of up to `count` images drawn at random, one a class, from the classes that have another image to find."""
    generator = np.random.default_rng([seed, 1])
    classes, sizes = np.unique(labels.astype(str), return_counts=True)
    chosen = generator.permutation(classes[sizes > 1])[:count]
    return [int(generator.choice(np.flatnonzero(labels == label))) for label in chosen]


def draw_texts(names: Sequence[str], count: int, seed: int) -> list[int]:
    """Positions of up to `count` of the names, drawn at random, each name once."""
    return [int(position) for position in np.random.default_rng([seed, 2]).permutation(_first_of_each(names))[:count]]


def worst_images(average_precision: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Rows of up to `count` images with the lowest average precision [N], one a class; nan is no query. Ties by row."""
    worst: list[int] = []
    seen: set[str] = set()
    for row in np.argsort(average_precision, kind="stable"):
        if len(worst) == count or np.isnan(average_precision[row]):
            break
        if labels[row] not in seen:
            seen.add(labels[row])
            worst.append(int(row))
    return worst


def worst_texts(texts: np.ndarray, images: np.ndarray, class_names: Sequence[str], names: Sequence[str], count: int) -> list[int]:
    """Positions of up to `count` class names whose text [C, d] finds its first right image last, each name once. Ties by position."""
    image_names = np.array(names, dtype=object)
    positions = _first_of_each(class_names)
    first_ranks = []
    for position in positions:
        similarities = np.asarray(images, np.float32) @ np.asarray(texts[position], np.float32)
        best = similarities[image_names == class_names[position]].max()
        first_ranks.append(np.count_nonzero(similarities > best))
    return [positions[each] for each in np.argsort(-np.array(first_ranks), kind="stable")[:count]]


def most_changed(queries: Sequence[Query], count: int, k: int) -> list[Query]:
    """Up to `count` of the queries, those whose recipes differ most in how many of their first k hits are right, for better or worse.

    Ties in the order given.
    """

    def change(query: Query) -> int:
        right = [sum(hit.right for hit in found.hits[:k]) for found in query.answers.values()]
        return max(right) - min(right)

    return sorted(queries, key=change, reverse=True)[:count]


def _first_of_each(names: Sequence[str]) -> list[int]:
    return sorted({name: position for position, name in reversed(list(enumerate(names)))}.values())
