"""What is measured between epochs: search among the validation pictures. Test pictures are not read.

A class of the validation split is unseen where no training picture is of it; the others are classes of training, with pictures held out.
Unseen classes show what training does to classes like those of the test split, so they alone search where there are enough of them.

Shapes: N validation pictures, Q of them search, C class names that search, d embedding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assets.metrics.retrieval import average_precisions
from assets.pictures.split import Split
from assets.pictures.table import read_rows

SEARCH = "search"  # the measure that chooses what is kept: the mean of both ways
ENOUGH_UNSEEN = 10  # unseen classes of two pictures or more; with fewer, all validation pictures search


@dataclass(frozen=True)
class ValidationSet:
    pictures: Split
    labels: np.ndarray  # [N]
    searching: np.ndarray  # int64 [Q], rows of the pictures that search
    class_names: np.ndarray  # [N]
    unseen: frozenset[str]  # labels of classes that training never sees

    @property
    def names(self) -> list[str]:
        """[C], sorted: of the classes of the pictures that search."""
        return sorted(set(self.class_names[self.searching]))

    def why_no_choice(self, least: int) -> str | None:
        """Why these pictures cannot choose between two models where at least so many are asked for; None where they can."""
        if not len(self.labels):
            return "there are no validation pictures"
        if len(self.labels) < least:
            return f"{len(self.labels)} validation pictures are too few to choose by; at least {least} are needed (min_validation_pictures)"
        return None

    def __str__(self) -> str:
        classes = set(self.labels[self.searching])
        seen = len(classes - self.unseen) or "none"
        return (
            f"{len(self.searching)} of {len(self.labels)} validation pictures search, of {len(classes)} classes;"
            f" training sees pictures of {seen} of them"
        )


def read_validation_set(table: Path) -> ValidationSet:
    rows = read_rows(table, "validation", ["label", "class_name"])
    labels, class_names = (np.array(rows[name].to_pylist(), dtype=object) for name in ("label", "class_name"))
    trained = set(read_rows(table, "train", ["label"])["label"].to_pylist())
    new = np.array([label not in trained for label in labels], dtype=bool)
    enough = unseen_classes(Counter(labels), trained) >= ENOUGH_UNSEEN
    searching = np.flatnonzero(new) if enough else np.arange(len(labels))
    return ValidationSet(Split(table, "validation"), labels, searching, class_names, frozenset(labels[new]))


def unseen_classes(held_out: Counter[str], trained: set[str]) -> int:
    """How many classes validate that training never sees, of two pictures or more. `held_out`: validation pictures by class."""
    return sum(pictures > 1 for label, pictures in held_out.items() if label not in trained)


def measures(held_out: ValidationSet, images: np.ndarray, texts: np.ndarray) -> dict[str, float | None]:
    """image_to_image and text_to_image, mAP (fractions), and their mean, search; None where there is nothing to measure.

    images [N, d] and texts [C, d]: the embeddings of `held_out`'s pictures and names.
    """
    found = {name: float(values.mean()) if len(values) else None for name, values in precisions(held_out, images, texts).items()}
    known = [value for value in found.values() if value is not None]
    return {**found, SEARCH: float(np.mean(known)) if known else None}


def precisions(held_out: ValidationSet, images: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """The average precision of each class that searches, float64, by measure; without classes that have nothing to find.

    image_to_image: each picture that searches, among all others; the mean of a class, so that classes weigh the same. text_to_image: each
    class name among all pictures. The whole ranking counts, so there is room at the top also where classes are few.
    """
    searching, names = held_out.searching, held_out.names
    labels = np.unique(held_out.labels.astype(str), return_inverse=True)[1]  # numbers, which compare fast
    number = {name: place for place, name in enumerate(names)}
    named = np.array([number.get(name, -1) for name in held_out.class_names], dtype=np.int64)

    def own(start: int, stop: int) -> np.ndarray:
        return searching[start:stop, None] == np.arange(len(labels))

    def same(start: int, stop: int) -> np.ndarray:
        return (labels[searching[start:stop], None] == labels[None, :]) & ~own(start, stop)

    def of_name(start: int, stop: int) -> np.ndarray:
        return named == np.arange(start, stop)[:, None]

    by_picture = average_precisions(images[searching], images, same, exclude=own) if len(searching) else np.zeros(0)
    found = ~np.isnan(by_picture)
    _, place = np.unique(labels[searching][found], return_inverse=True)
    by_name = average_precisions(texts, images, of_name) if names else np.zeros(0)
    return {
        "image_to_image": np.bincount(place, by_picture[found]) / np.bincount(place) if found.any() else np.zeros(0),
        "text_to_image": by_name[~np.isnan(by_name)],
    }
