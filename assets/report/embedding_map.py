"""Section «Map of the embedding»: test images in two dimensions, by PCA and t-SNE. The page's script draws it.

Shapes: N images, n of them on the map, d embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from assets.evaluations import Evaluation, TestSplit
from assets.pictures.small import thumbnail

DIMENSIONS = 50  # that PCA leaves to t-SNE, as its authors do
PERPLEXITY = 30.0
ITERATIONS = 500
FEWEST = 8  # images; below, PCA alone places them
EXTENT = 1000  # coordinates are whole numbers from 0 to this
GROUP_COLORS = 9  # --group-0 … of page.css; the smaller groups share the next one


def draw_classes(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Rows of up to `count` images, whole classes of labels [N] drawn at random, so that a class can be seen to hold together.

    Where every class has more than `count` images, a share of each: the same for all of them, drawn at random.
    """
    generator = np.random.default_rng([seed, 6])
    classes, numbers, sizes = np.unique(labels.astype(str), return_inverse=True, return_counts=True)
    if sizes.min() > count:
        return _share_of_each(numbers, count, generator)
    taken, room = [], count
    for number in generator.permutation(len(classes)):
        if sizes[number] <= room:
            taken.append(number)
            room -= sizes[number]
    return np.flatnonzero(np.isin(numbers, taken)).tolist()


def _share_of_each(numbers: np.ndarray, count: int, generator: np.random.Generator) -> list[int]:
    """`count` rows, as many of each class as of any other, or one fewer."""
    order = generator.permutation(len(numbers))
    within = np.empty(len(numbers), int)  # how many of its class come before a row
    for number in range(numbers.max() + 1):
        own = order[numbers[order] == number]
        within[own] = np.arange(len(own))
    return sorted(order[np.argsort(within[order], kind="stable")][:count].tolist())


def layout(vectors: np.ndarray, seed: int, start: np.ndarray | None) -> np.ndarray:
    """int [n, 2] from 0 to EXTENT for vectors [n, d]; from `start` [n, 2], a layout of the same images, turned to lie as it does.

    On one thread, since sums of several come out in another order each time.
    """
    with threadpool_limits(1):
        places = _places(np.asarray(vectors, np.float64), seed, start)
    low, high = places.min(axis=0), places.max(axis=0)
    return np.rint(EXTENT * (places - low) / np.where(high > low, high - low, 1)).astype(int)


def _places(vectors: np.ndarray, seed: int, start: np.ndarray | None) -> np.ndarray:
    count = len(vectors)
    flat = PCA(min(DIMENSIONS, *vectors.shape), svd_solver="full").fit_transform(vectors) if count > 1 else np.zeros((count, 2))
    if count < FEWEST:
        return np.pad(flat[:, :2], ((0, 0), (0, max(0, 2 - flat.shape[1]))))
    begin = flat[:, :2] if start is None else start - start.mean(axis=0)
    begin = np.pad(begin, ((0, 0), (0, 2 - begin.shape[1])))
    begin = (begin / (begin[:, 0].std() or 1.0) * 1e-4).astype(np.float32)  # small, as sklearn scales its own
    tsne = TSNE(2, perplexity=min(PERPLEXITY, (count - 1) / 3), init=begin, max_iter=ITERATIONS, random_state=seed, n_jobs=1)
    places = tsne.fit_transform(flat.astype(np.float32))
    if start is None:
        return places
    places = places - places.mean(axis=0)
    turn, _ = orthogonal_procrustes(places, begin)  # t-SNE may turn or mirror what it began with
    return places @ turn


def sheet(pictures: list[bytes], side: int) -> Image.Image:
    """The pictures side by side on white squares, row by row, as many abreast as `abreast` says."""
    across = abreast(len(pictures))
    canvas = Image.new("RGB", (across * side, -(-len(pictures) // across) * side), "white")
    for number, data in enumerate(pictures):
        small = thumbnail(data, side)
        left, above = number % across * side, number // across * side
        canvas.paste(small, (left + (side - small.width) // 2, above + (side - small.height) // 2))
    return canvas


def abreast(count: int) -> int:
    return max(1, int(np.ceil(np.sqrt(count))))


def places_of(before_after: Mapping[str, Evaluation], rows: Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """By recipe: where the images of `rows` lie in its space, int [n, 2]; the layouts after the first start from it. Empty without rows."""
    places: dict[str, np.ndarray] = {}
    if rows:
        for recipe, each in before_after.items():
            places[recipe] = layout(each.images[rows], seed, next(iter(places.values()), None))
    return places


def map_view(places: Mapping[str, np.ndarray], rows: Sequence[int], test: TestSplit) -> dict[str, Any]:
    """What the page's script draws from: for each image its place in each space, its class and its source; for each class its group."""
    labels, groups = test.labels[list(rows)], test.rows["group"].take(list(rows)).to_pylist()
    credited = [test.credits([row])[0].short for row in rows]
    sizes = Counter(group for group in groups if group)
    shown = [group for group, _ in sorted(sizes.items(), key=lambda each: (-each[1], each[0]))]
    colored, others = shown[:GROUP_COLORS], shown[GROUP_COLORS:]
    if others or (len(sizes) and None in groups):
        colored = [*colored, "others" if shown else ""]
    number_of = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    group_of = {
        label: colored.index(group) if group in colored else max(0, len(colored) - 1) for label, group in zip(labels, groups, strict=True)
    }
    name_of = {label: test.names[row] for label, row in zip(labels, rows, strict=True)}
    sources = sorted(set(credited))
    return {
        "spaces": list(places),
        "extent": EXTENT,
        "abreast": abreast(len(rows)),
        "groups": colored,
        "classes": [[name_of[label], group_of[label]] for label in number_of],
        "sources": sources,
        "points": [
            [*(int(each) for place in places.values() for each in place[position]), number_of[label], sources.index(credit)]
            for position, (label, credit) in enumerate(zip(labels, credited, strict=True))
        ],
    }
