"""Section «Query browser»: which queries are shown, drawn by seed or the worst, and what each recipe finds by exact search.

Shapes: N images, C classes, d embedding. A space is a recipe's unit-norm embeddings, by recipe. Rows are positions in test order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assets import params
from assets.evaluations import Evaluation, TestSplit
from assets.measures import MEASURE_OF
from assets.report.album import Album

TILES_ABREAST = 8


@dataclass(frozen=True)
class Hit:
    row: int
    right: bool
    similarity: float


@dataclass(frozen=True)
class Answer:
    """What one query finds: its first hits, and the rank of the first right one, from 1; None where nothing is right."""

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


@dataclass(frozen=True)
class Chosen:
    """The queries of the page: test images and class names drawn by seed, and those on which the published recipe does worst."""

    images: list[Query]
    texts: list[Query]
    worst_images: list[Query]
    worst_texts: list[Query]

    @property
    def rows(self) -> list[int]:
        """Every test image that showing them needs."""
        return [row for query in (*self.images, *self.texts, *self.worst_images, *self.worst_texts) for row in query.rows]


def choose(before_after: Mapping[str, Evaluation], published: Evaluation, test: TestSplit, settings: params.Report) -> Chosen:
    """Queries, answered by each recipe of `before_after`."""
    images = {recipe: each.images for recipe, each in before_after.items()}
    texts = {recipe: each.texts for recipe, each in before_after.items()}
    k = settings.top_k

    average_precision = published.per_query[MEASURE_OF["image_to_image.map"].column].to_numpy()
    chosen_images = (
        draw_images(test.labels, settings.queries, settings.seed),
        worst_images(average_precision, test.labels, settings.worst_failures),
    )
    chosen_texts = (
        draw_texts(test.class_names, settings.queries, settings.seed),
        worst_texts(published.texts, published.images, test.class_names, test.names, settings.worst_failures),
    )
    drawn, worst = (ask_images(rows, images, test.labels, test.names, k) for rows in chosen_images)
    drawn_names, worst_names = (ask_texts(each, texts, images, test.class_names, test.names, k) for each in chosen_texts)
    return Chosen(drawn, drawn_names, worst, worst_names)


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
    """Rows of up to `count` images with the lowest average precision [N], one per class; nan: nothing to find. Ties by row."""
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


def _first_of_each(names: Sequence[str]) -> list[int]:
    return sorted({name: position for position, name in reversed(list(enumerate(names)))}.values())


def queries_view(chosen: Chosen, published: str, seed: int, album: Album) -> list[dict[str, Any]]:
    """The sets of queries to choose among, those that are empty left out."""
    sets = (
        ("Pictures", chosen.images, f"test images drawn at random (seed {seed}), not chosen; each searches all the other test images"),
        ("Words", chosen.texts, f"class names drawn at random (seed {seed}); each searches all test images, as a person’s words would"),
        ("Worst pictures", chosen.worst_images, f"images with the lowest average precision of {published}, one per class"),
        ("Worst words", chosen.worst_texts, f"names whose first right image comes last with {published}"),
    )
    return [query_set(title, note, queries, album) for title, queries, note in sets if queries]


def query_set(title: str, note: str, queries: Sequence[Query], album: Album) -> dict[str, Any]:
    """Queries in order of their gain in right hits, the largest first; equal ones stay as given."""
    return {"title": title, "note": note, "cards": [query_card(query, album) for query in sorted(queries, key=lambda query: -gain(query))]}


def gain(query: Query) -> int:
    """How many more right hits the last recipe has than the first."""
    right = [found.right for found in query.answers.values()]
    return right[-1] - right[0]


def query_card(query: Query, album: Album) -> dict[str, Any]:
    """A query with one strip of hits per recipe, and whom to credit for its pictures."""
    return {
        "name": query.name,
        "picture": None if query.row is None else album.picture(query.row, None),
        "gain": gain(query),
        "right": " → ".join(str(found.right) for found in query.answers.values()),
        "strips": [
            {
                "recipe": recipe,
                "right": found.right,
                "total": len(found.hits),
                "tiles": [album.picture(hit.row, hit.right) for hit in found.hits],
                "note": first_right(found),
                "instead": found_instead(found, album.test),
            }
            for recipe, found in query.answers.items()
        ],
        "credits": sorted({credit.short for credit in album.test.credits(query.rows)}),
    }


def first_right(found: Answer) -> str:
    return "nothing right to find" if found.first_right is None else f"first right one at rank {found.first_right:,}"


def found_instead(found: Answer, test: TestSplit) -> str:
    """The class names of the wrong hits, the most frequent first."""
    counts = Counter(test.names[hit.row] for hit in found.hits if not hit.right)
    return " · ".join(f"{name} ×{count}" if count > 1 else name for name, count in counts.most_common(4))
