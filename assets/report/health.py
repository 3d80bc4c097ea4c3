"""Section «Embedding health»: what assets.metrics measures on the vectors of every recipe, with a plain line for each.

It judges nothing.

Shapes: N images, T texts, P pairs of an image and a caption of its own, d embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from assets.metrics.health import alignment, drift, effective_rank, hubness, modality_gap, same_class_threshold, uniformity
from assets.recipes import BASE

NEIGHBOURS = 10  # k of hubness


@dataclass(frozen=True)
class HealthMeasure:
    key: str
    name: str
    meaning: str
    digits: int


HEALTH = (
    HealthMeasure(
        "modality_gap", "modality gap", "distance between the centre of the images and that of the texts; 0: they share one, at most 2", 2
    ),
    HealthMeasure("alignment", "alignment", "mean squared distance of an image and its own caption; lower is closer, 2: unrelated", 2),
    HealthMeasure("uniformity", "uniformity", "how evenly images use the space; lower is more even, 0: all in one point", 2),
    HealthMeasure(
        "hubness",
        "hubness",
        f"whether a few images are among everyone’s {NEIGHBOURS} nearest; near 0: none, well above 1: some crowd out",
        2,
    ),
    HealthMeasure("effective_rank", "effective rank", "how many dimensions the images really use; 1: all lie on one line", 0),
    HealthMeasure("drift", "kept of base", "mean cosine of an image’s vector with base’s; 1: training moved nothing", 2),
    HealthMeasure(
        "threshold", "cosine for «same»", "two images at least so similar are called one class; here that call is best (highest F1)", 2
    ),
    HealthMeasure("precision", "… its precision, %", "of the pairs called one class, how many are", 1),
    HealthMeasure("recall", "… its recall, %", "of the pairs of one class, how many are called so", 1),
    HealthMeasure("threshold_at_95_precision", "cosine for 95 % sure", "from here on at least 95 of 100 pairs called one class are one", 3),
)
OF_IMAGES = ("uniformity", "hubness", "effective_rank", "threshold", "precision", "recall", "threshold_at_95_precision")


def health(
    spaces: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: np.ndarray, own_captions: np.ndarray, classes: int
) -> dict[str, dict[str, float | None]]:
    """By recipe, every measure of HEALTH; None where there is nothing to measure.

    spaces: images [N, d] and texts [T, d] by recipe, `classes` class names and then the captions; base is among them. labels [N];
    own_captions [P, 2]: image row, position among the captions. Recipes with the same images share what is measured on images alone.
    """
    base, _ = spaces[BASE]
    measured: list[tuple[np.ndarray, dict[str, float | None]]] = []
    found = {}
    for recipe, (images, texts) in spaces.items():
        of_images = next((values for known, values in measured if np.array_equal(known, images)), None)
        if of_images is None:
            of_images = _of_images(images, labels)
            measured.append((images, of_images))
        rows, captions = own_captions.T
        found[recipe] = of_images | {
            "modality_gap": modality_gap(images, texts),
            "alignment": alignment(images[rows], texts[classes + captions]) if len(own_captions) else None,
            # a base of another width, such as before an added projection, has no cosine with it
            "drift": drift(base, images) if recipe != BASE and base.shape == images.shape else None,
        }
    return found


def _of_images(images: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    values: dict[str, float | None] = dict.fromkeys(OF_IMAGES)
    values |= {"hubness": hubness(images, NEIGHBOURS), "effective_rank": effective_rank(images)}
    if len(images) > 1:
        values["uniformity"] = uniformity(images)
    if len(set(labels)) < len(labels):
        same = same_class_threshold(images, labels.astype(str))
        values |= {"threshold": same.threshold, "precision": 100 * same.precision, "recall": 100 * same.recall}
        values["threshold_at_95_precision"] = same.threshold_at_95_precision
    return values


def health_view(found: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """The section's table: one row per measure, one column per recipe."""
    rows = [
        {
            "name": measure.name,
            "meaning": measure.meaning,
            "cells": [
                "–" if (value := values[measure.key]) is None else f"{value:.{measure.digits}f}".replace("-", "−")
                for values in found.values()
            ],
        }
        for measure in HEALTH
    ]
    return {"health_recipes": list(found), "health": rows}
