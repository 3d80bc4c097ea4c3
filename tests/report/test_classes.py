"""Classes that got better and worse."""

from __future__ import annotations

import numpy as np

from assets.report.classes import class_changes, found_instead, most_gained, most_lost, tally

LABELS = np.array(["a", "b", "a", "c", "b", "d", "d", "d", "d"], dtype=object)
BEFORE = np.array([10, 50, 30, np.nan, 50, 40, 40, 40, 40.0])
AFTER = np.array([50, 20, 60, np.nan, 20, 60, 60, 60, 60.0])


def test_a_class_s_change_is_the_difference_of_its_queries_means():
    changes = class_changes(LABELS, BEFORE, AFTER)
    assert [(each.label, each.rows, each.before, each.after) for each in changes] == [
        ("a", [0, 2], 20, 55),
        ("b", [1, 4], 50, 20),
        ("d", [5, 6, 7, 8], 40, 60),
    ]  # c has nothing to find


def test_classes_that_moved_the_mean_of_all_images_most_come_first():
    changes = class_changes(LABELS, BEFORE, AFTER)
    assert [each.label for each in most_gained(changes, 5)] == ["d", "a"]  # four images by 20 points, two by 35
    assert [each.label for each in most_gained(changes, 1)] == ["d"]
    assert [each.label for each in most_lost(changes, 5)] == ["b"]
    assert tally(changes) == {"classes": 3, "rose": 2, "fell": 1, "stayed": 0}


def test_a_class_that_hardly_moved_did_neither_rise_nor_fall():
    changes = class_changes(np.array(["a", "b"], dtype=object), np.array([10.0, 10]), np.array([11.0, 8.9]))
    assert tally(changes) == {"classes": 2, "rose": 0, "fell": 1, "stayed": 1}


def test_what_is_found_instead_is_counted_over_the_class_s_images():
    images = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    labels = np.array(["a", "a", "b", "c"], dtype=object)
    (change,) = class_changes(labels, np.array([1, 1, np.nan, np.nan]), np.array([2, 2, np.nan, np.nan]))
    assert found_instead(change, images, labels, ["ant", "ant", "bee", "cat"]) == [("bee", 2), ("cat", 2)]
