"""Which vectors each measure of health is taken on."""

from __future__ import annotations

import numpy as np
import pytest

from assets.metrics.health import alignment, hubness, modality_gap, same_class_threshold
from assets.report.health import HEALTH, NEIGHBOURS, health

LABELS = np.array(["a", "a", "b", "b", "c"], dtype=object)
OWN = np.array([[0, 0], [1, 0], [3, 1]])


def unit(*shape: int) -> np.ndarray:
    vectors = np.random.default_rng(shape[0]).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_captions_are_found_behind_the_class_names():
    images, texts = unit(5, 4), unit(5 + 3, 4)[:5]  # three names, two captions
    tuned = images[::-1].copy()
    found = health({"base": (images, texts), "gpr": (tuned, texts)}, LABELS, OWN, classes=3)
    assert list(found) == ["base", "gpr"]
    assert all(set(values) == {measure.key for measure in HEALTH} for values in found.values())
    assert found["base"]["alignment"] == pytest.approx(alignment(images[[0, 1, 3]], texts[[3, 3, 4]]))
    assert found["base"]["modality_gap"] == pytest.approx(modality_gap(images, texts))
    assert found["base"]["drift"] is None
    assert found["gpr"]["drift"] == pytest.approx(float(np.sum(images * tuned, axis=1).mean()), abs=1e-6)
    same = same_class_threshold(tuned, LABELS.astype(str))
    assert (found["gpr"]["threshold"], found["gpr"]["precision"]) == (same.threshold, 100 * same.precision)


def test_recipes_with_the_same_images_share_what_is_measured_on_them_and_not_the_rest():
    images, texts, other = unit(5, 4), unit(8, 4)[:5], unit(9, 4)[:5]
    found = health({"base": (images, texts), "gpr": (images.copy(), other)}, LABELS, OWN, classes=3)
    assert found["gpr"]["hubness"] == found["base"]["hubness"] == hubness(images, NEIGHBOURS)
    assert found["gpr"]["modality_gap"] != found["base"]["modality_gap"]
    assert found["gpr"]["drift"] == pytest.approx(1)


def test_without_captions_or_pairs_there_is_nothing_to_measure():
    found = health({"base": (unit(2, 4), unit(3, 4)[:2])}, np.array(["a", "b"], dtype=object), np.zeros((0, 2), int), classes=2)["base"]
    assert found["alignment"] is None
    assert found["threshold"] is None
    assert found["uniformity"] is not None
