"""Pairs of the test split and how alike they are."""

from __future__ import annotations

import numpy as np
import pytest

from assets.report import similarity
from assets.report.similarity import Similarities, draw_pairs, similarities

LABELS = np.array(["a", "b", "a", "a"], dtype=object)
CAPTIONS_OF = [["x", "y"], [], ["y"], ["x"]]


def test_all_pairs_of_a_class_and_all_own_captions_where_there_are_few():
    pairs = draw_pairs(LABELS, CAPTIONS_OF, ["x", "y"], seed=0)
    assert sorted(map(tuple, pairs.same_class)) == [(0, 2), (0, 3), (2, 3)]
    assert sorted(map(tuple, pairs.image_caption)) == [(0, 0), (0, 1), (2, 1), (3, 0)]
    assert {frozenset(LABELS[pair]) for pair in pairs.other_class} == {frozenset("ab")}


def test_many_pairs_are_drawn_down_to_a_bound(monkeypatch):
    monkeypatch.setattr(similarity, "PAIRS", 20)
    labels = np.array(["a"] * 12 + ["b"] * 12, dtype=object)
    pairs = draw_pairs(labels, [["x"]] * 24, ["x"], seed=0)
    assert (len(pairs.same_class), len(pairs.other_class), len(pairs.image_caption)) == (20, 20, 20)
    assert (labels[pairs.same_class[:, 0]] == labels[pairs.same_class[:, 1]]).all()
    assert (pairs.same_class[:, 0] != pairs.same_class[:, 1]).all()
    np.testing.assert_array_equal(pairs.other_class, draw_pairs(labels, [["x"]] * 24, ["x"], seed=0).other_class)


def test_cosines_are_dot_products_of_the_pairs():
    images = np.array([[1, 0], [0, 1], [0.6, 0.8], [1, 0]], np.float32)
    captions = np.array([[0, 1], [1, 0]], np.float32)
    pairs = draw_pairs(LABELS, CAPTIONS_OF, ["x", "y"], seed=0)
    found = similarities(images, captions, pairs)
    np.testing.assert_allclose(found.same_class, [images[i] @ images[j] for i, j in pairs.same_class])
    np.testing.assert_allclose(found.image_caption, [images[i] @ captions[j] for i, j in pairs.image_caption])


def test_without_captions_there_is_nothing_to_compare():
    pairs = draw_pairs(LABELS, [[]] * 4, [], seed=0)
    assert len(similarities(np.eye(4, dtype=np.float32), np.zeros((0, 4), np.float32), pairs).image_caption) == 0


def test_separation_is_the_share_of_draws_that_a_pair_of_one_class_wins():
    none = np.zeros(0)
    same, other = np.array([0.9, 0.5]), np.array([0.1, 0.5, 0.7, 0.2])
    # 0.9 beats four; 0.5 beats two and ties one: (4 + 2.5) of 8
    assert Similarities(same, other, none).separation == pytest.approx(100 * 6.5 / 8)
    assert Similarities(same, none, none).separation is None
