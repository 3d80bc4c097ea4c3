"""Which queries are shown, and what they find."""

from __future__ import annotations

import numpy as np

from assets.report.queries import (
    answer,
    ask_images,
    ask_texts,
    draw_images,
    draw_texts,
    worst_images,
    worst_texts,
)

AXIS = np.eye(3, dtype=np.float32)


def test_an_answer_ranks_by_similarity_with_ties_by_row():
    images = AXIS[[1, 0, 2, 0]]
    found = answer(AXIS[0], images, np.array([False, False, True, True]), k=3, exclude=None)
    assert [(hit.row, hit.right) for hit in found.hits] == [(1, False), (3, True), (0, False)]
    assert found.first_right == 2
    assert found.right == 1


def test_an_answer_leaves_the_query_out():
    found = answer(AXIS[0], AXIS, np.array([True, False, False]), k=5, exclude=0)
    assert [hit.row for hit in found.hits] == [1, 2]
    assert found.first_right is None


def test_drawn_images_are_of_different_classes_that_have_two():
    labels = np.array(["a", "a", "b", "c", "c", "d", "d"], dtype=object)
    rows = draw_images(labels, 10, seed=0)
    assert sorted(labels[rows]) == ["a", "c", "d"]  # b has nothing to find
    assert draw_images(labels, 10, seed=0) == rows
    assert len(draw_images(labels, 2, seed=0)) == 2
    assert len({tuple(draw_images(labels, 2, seed=seed)) for seed in range(20)}) > 3


def test_drawn_names_come_once():
    names = ["dog", "cat", "dog", "owl"]
    drawn = draw_texts(names, 10, seed=0)
    assert sorted(drawn) == [0, 1, 3]
    assert draw_texts(names, 10, seed=0) == drawn


def test_worst_images_one_a_class_without_those_that_were_no_query():
    precision = np.array([0.5, 0.1, 0.2, np.nan, 0.1])
    labels = np.array(["a", "b", "b", "c", "d"], dtype=object)
    assert worst_images(precision, labels, 9) == [1, 4, 0]
    assert worst_images(precision, labels, 2) == [1, 4]


def test_worst_names_are_those_whose_first_right_image_comes_last():
    images = AXIS[[0, 1, 2, 0]]
    texts = np.array([[0, 0.5, 1], [0, 1, 0], [0, 0, 1]], np.float32)  # the first ranks rows 2, 1 before its own
    names, image_names = ["x", "y", "z"], ["x", "y", "z", "x"]
    assert worst_texts(texts, images, names, image_names, 3) == [0, 1, 2]
    assert worst_texts(texts, images, ["x", "x", "z"], ["x", "x", "z", "x"], 3) == [0, 2]


def test_an_image_asks_for_its_label_and_a_name_for_all_classes_of_that_name():
    labels = np.array(["1", "1", "2"], dtype=object)
    names = ["dog", "dog", "dog"]
    (query,) = ask_images([0], {"base": AXIS}, labels, names, k=5)
    assert [hit.right for hit in query.answers["base"].hits] == [True, False]
    assert sorted(query.rows) == [0, 1, 2]
    (query,) = ask_texts([1], {"base": AXIS[:2]}, {"base": AXIS}, ["dog", "dog"], names, k=5)
    assert (query.row, query.name) == (None, "dog")
    assert [(hit.row, hit.right) for hit in query.answers["base"].hits] == [(1, True), (0, True), (2, True)]
