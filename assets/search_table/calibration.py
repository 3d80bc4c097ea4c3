"""What a cosine means in this table: from which one on a hit is «same» or «related». Measured at each publish, kept in its manifest.

Pictures of test classes, which training never saw, are compared with each other and with the names of their classes. Shapes: N pictures,
C classes, d embedding.
"""

from __future__ import annotations

import numpy as np

from assets.metrics.cutoffs import Cutoff, best_cutoff, exceeded_by
from assets.metrics.health import same_class_threshold
from assets.metrics.norms import unit_norm

MOST_PICTURES = 5000  # of more, so many evenly spaced ones
MOST_CLASSES = 1000
COMPARED = 1000  # pictures, drawn for «related»: pairs of two classes
RELATED_SHARE = 0.01  # of the pairs that do not belong together are at least as similar as «related»
DIGITS = 3  # fp32 noise lies below


def labelled_rows(split_of: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows of the test pictures with a label, at most MOST_PICTURES."""
    rows = np.flatnonzero((split_of == "test") & np.array([label is not None for label in labels], bool))
    return rows[:: -(-len(rows) // MOST_PICTURES) or 1]


def calibrate(images: np.ndarray, labels: np.ndarray, names: np.ndarray, classes: np.ndarray) -> dict[str, dict[str, float | None]]:
    """By kind of query, `picture` and `text`: the cosines `same` and `related`, with precision and recall of the call «same».

    images [N, d] with their labels [N]; names [C, d], the vectors of class names, and the labels `classes` [C] that they name. The values
    of a kind are None where nothing can be measured: fewer than two classes, or none with two pictures.
    """
    fit, named = unit_norm(images), unit_norm(names)
    images, labels, names, classes = images[fit], labels[fit].astype(str), names[named][:MOST_CLASSES], classes[named][:MOST_CLASSES]
    unknown: dict[str, float | None] = dict.fromkeys(("same", "precision", "recall", "related"))
    found = {"picture": dict(unknown), "text": dict(unknown)}
    kinds = len(set(labels))
    if 2 <= kinds < len(labels):
        same = same_class_threshold(images, labels)
        drawn = np.random.default_rng(0).permutation(len(images))[:COMPARED]
        wrong = (images[drawn] @ images[drawn].T)[labels[drawn][:, None] != labels[drawn]]
        found["picture"] = _described(Cutoff(same.threshold, same.precision, same.recall), wrong)
    if kinds >= 2 and len(names):
        cosines = names @ images.T
        right = classes.astype(str)[:, None] == labels
        if right.any():
            found["text"] = _described(best_cutoff(cosines[right], cosines[~right]), cosines[~right])
    return found


def _described(same: Cutoff, wrong: np.ndarray) -> dict[str, float | None]:
    related = min(exceeded_by(wrong, RELATED_SHARE), same.cosine)
    values = {"same": same.cosine, "precision": same.precision, "recall": same.recall, "related": related}
    return {name: round(value, DIGITS) for name, value in values.items()}
