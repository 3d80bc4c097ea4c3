"""How far the vectors of a graph are from the model's own, and what search loses by them: queries by the graph, the library by the model.

Shapes: N pictures, C class names, d embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

K = 10


@dataclass(frozen=True)
class Sample:
    """Validation pictures and the names of their classes, as the model itself embeds them."""

    pictures: np.ndarray  # float32 [N, d]
    labels: np.ndarray  # [N]
    names: np.ndarray  # float32 [C, d]
    classes: np.ndarray  # the labels [C] that the names are of


def lowest_cosine(own: np.ndarray, graph: np.ndarray) -> float | None:
    """Of unit-norm rows [N, d] in pairs; None of none. A row that the model gives no vector must be none by the graph, too."""
    some = np.linalg.norm(own, axis=1) > 0.5
    return float(np.einsum("nd,nd->n", own[some], graph[some]).min()) if some.any() else None


def recall(queries: np.ndarray, own_rows: bool, classes: np.ndarray, sample: Sample) -> float | None:
    """Percent of the queries with a right picture among the ten nearest; None where no query has one at all.

    `own_rows`: query i is picture i, which is not among its own hits.
    """
    similarities = queries @ sample.pictures.T
    right = classes.astype(str)[:, None] == sample.labels.astype(str)
    if own_rows:
        np.fill_diagonal(similarities, -np.inf)
        np.fill_diagonal(right, False)
    askable = right.any(axis=1)
    if not askable.any():
        return None
    first = np.argsort(-similarities[askable], axis=1, kind="stable")[:, :K]
    return float(100 * np.take_along_axis(right[askable], first, axis=1).any(axis=1).mean())


def measured(pictures: np.ndarray, names: np.ndarray, sample: Sample) -> dict[str, float | None]:
    """Of a graph's vectors of the same pictures [N, d] and names [C, d]."""
    found: dict[str, float | None] = {
        "picture_cosine": lowest_cosine(sample.pictures, pictures),
        "text_cosine": lowest_cosine(sample.names, names),
    }
    for kind, own, graph, own_rows, classes in (
        ("picture", sample.pictures, pictures, True, sample.labels),
        ("text", sample.names, names, False, sample.classes),
    ):
        before, after = recall(own, own_rows, classes, sample), recall(graph, own_rows, classes, sample)
        found[f"{kind}_recall_at_10"] = after
        found[f"{kind}_recall_lost"] = None if before is None or after is None else before - after
    return {name: None if value is None else round(value, 5) for name, value in found.items()}
