"""Differences between recipes and their intervals."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from assets.measures import PAIRED
from assets.metrics.bootstrap import PairedDifference
from assets.promotion.comparison import (
    Bootstrap,
    difference_json,
    expanded,
    gated_differences,
    group_differences,
    outcome,
    overlap_difference,
    paired_differences,
    query_classes,
    query_families,
    query_siblings,
    query_values,
)

PER_QUERY = pa.table(
    {
        "label": ["a", "a", "b"],
        "family": ["f", "f", "f"],
        "sibling": [True, True, False],
        "average_precision": pa.array([50.0, 100.0, None]),
        "hit_at_1": pa.array([True, False, None]),
        "knn_correct": [True, True, False],
        "zero_shot_correct": [False, False, True],
    }
)
KEYS = [measure.key for measure in PAIRED]
BOOTSTRAP = Bootstrap(samples=500, level=0.95, seed=3)
PER_CLASS = pa.table({"label": ["a", "b"], "family": ["f", "f"], "sibling": [True, False], "recall_at_5": [100.0, 0.0]})


def test_query_values_are_percent_with_nan_where_nothing_was_asked():
    nan = np.nan
    expected = [[50, 100, 100, 0, nan], [100, 0, 100, 0, nan], [nan, nan, 0, 100, nan], [nan] * 4 + [100], [nan] * 4 + [0]]
    np.testing.assert_array_equal(query_values(PER_QUERY, PER_CLASS), expected)
    assert list(query_classes(PER_QUERY, PER_CLASS)) == ["a", "a", "b", "a", "b"]
    assert list(query_families(PER_QUERY, PER_CLASS)) == ["f"] * 5
    assert query_siblings(PER_QUERY, PER_CLASS).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize(("classes", "level", "expected"), [(6, 0.95, "better"), (5, 0.95, "tie"), (1, 0.95, "tie"), (5, 0.9, "better")])
def test_six_classes_tell_a_difference_that_is_the_same_everywhere_from_chance(classes, level, expected):
    values = np.random.default_rng(0).random((2 * classes, 5))
    higher, lower = (paired_differences(values + each, values, np.arange(2 * classes) // 2, Bootstrap(200, level, 0)) for each in (2, -2))
    assert set(higher) == set(lower) == {*KEYS, "average"}
    for up, down in zip(higher.values(), lower.values(), strict=True):
        assert tuple(up) == pytest.approx((2, 2 if expected == "better" else 0, 2))
        assert tuple(down) == pytest.approx((-2, -2, -2 if expected == "better" else 0))
        assert outcome(up) == expected


@pytest.mark.parametrize(("classes", "level"), [(8, 0.95), (16, 0.95), (16, 0.8), (200, 0.95)])
def test_with_few_classes_an_interval_is_as_wide_as_a_t_interval(classes, level):
    values = stats.norm.ppf((np.arange(classes) + 0.5) / classes)[:, None] * np.ones(5)
    found = paired_differences(values + 1, np.zeros_like(values), np.arange(classes), Bootstrap(20_000, level, 0))["knn.accuracy"]
    low, high = stats.t.interval(level, classes - 1, loc=1, scale=values[:, 0].std(ddof=1) / np.sqrt(classes))
    assert (found.high - found.low) == pytest.approx(high - low, rel=0.04)
    assert level < expanded(level, classes) < 1


def test_more_classes_are_drawn_at_the_level_itself_and_one_has_no_spread():
    assert expanded(0.95, 16) == pytest.approx(0.972, abs=5e-4)
    assert expanded(0.95, 763) == pytest.approx(0.9505, abs=1e-4)
    assert expanded(0.95, 10**6) == pytest.approx(0.95, abs=1e-6)
    assert expanded(0.95, 1) == 0.95
    assert 0.999 < expanded(0.95, 2) < 1


def test_the_average_is_the_mean_of_its_four_measures():
    generator = np.random.default_rng(0)
    reference, values = generator.random((40, 5)), generator.random((40, 5))
    found = paired_differences(values, reference, np.arange(40) // 4, BOOTSTRAP)
    difference = (values - reference).mean(axis=0)
    assert found["average"].value == pytest.approx(difference[[0, 2, 3, 4]].mean())
    assert found["average"].low < found["average"].value < found["average"].high


def test_a_measure_that_was_taken_nowhere_has_no_difference_and_the_others_keep_theirs():
    generator = np.random.default_rng(0)
    reference, values = generator.random((40, 5)), generator.random((40, 5))
    whole = paired_differences(values, reference, np.arange(40) // 4, BOOTSTRAP)
    values[:, KEYS.index("zero_shot.accuracy")] = np.nan
    found = paired_differences(values, reference, np.arange(40) // 4, BOOTSTRAP)
    assert found == {key: each for key, each in whole.items() if key not in ("zero_shot.accuracy", "average")}
    assert paired_differences(np.full((4, 5), np.nan), np.zeros((4, 5)), np.arange(4), BOOTSTRAP) == {}


def test_a_family_is_compared_by_pairs_else_by_overlap_else_not_at_all():
    row = {"knn": {"accuracy": 40}, "zero_shot": {"accuracy": 10}, "text_to_image": {"recall_at_5": 30, "caption_recall_at_5": None}}
    row |= {"image_to_image": {"map": 50}, "confidence": {"knn.accuracy": [38, 42], "zero_shot.accuracy": [9, 11]}}
    other = {"knn": {"accuracy": 30}, "zero_shot": {"accuracy": 10}, "text_to_image": {"recall_at_5": 30}}
    other |= {"confidence": {"knn.accuracy": [29, 31], "zero_shot.accuracy": [9, 11]}}
    paired = {"zero_shot.accuracy": PairedDifference(0, -1, 1)}
    found = gated_differences(row, other, paired, ["image_to_image", "knn", "zero_shot", "text_to_image", "caption_to_image"])
    assert found == {
        "image_to_image": None,  # the other has none
        "knn": (10, 7, 13),
        "zero_shot": (0, -1, 1),
        "text_to_image": None,  # without intervals
        "caption_to_image": None,  # there are no captions
    }


def test_no_difference_is_a_tie():
    values, classes = query_values(PER_QUERY, PER_CLASS), query_classes(PER_QUERY, PER_CLASS)
    assert {outcome(each) for each in paired_differences(values, values, classes, BOOTSTRAP).values()} == {"tie"}


def test_classes_are_drawn_whole():
    # two classes of many equal images: drawn one by one the interval would be narrow, drawn as classes it reaches from one to the other
    reference = np.zeros((200, 5))
    values = np.repeat([[0.0], [10.0]], 100, axis=0) * np.ones(5)
    found = paired_differences(values, reference, np.repeat(["a", "b"], 100), BOOTSTRAP)
    assert (found["knn.accuracy"].low, found["knn.accuracy"].high) == (0, 10)


@pytest.mark.parametrize(("reference", "expected"), [([30, 34], "better"), ([30, 39], "tie"), ([50, 60], "worse")])
def test_by_overlap_a_tie_is_two_intervals_that_meet(reference, expected):
    mine = {"knn": {"accuracy": 40}, "confidence": {"knn.accuracy": [38, 42]}}
    other = {"knn": {"accuracy": sum(reference) / 2}, "confidence": {"knn.accuracy": reference}}
    assert outcome(overlap_difference(mine, other, "knn.accuracy")) == expected


def test_json_says_what_the_difference_says():
    found = difference_json(overlap_difference(
        {"knn": {"accuracy": 40.00004}, "confidence": {"knn.accuracy": [39, 41]}},
        {"knn": {"accuracy": 30}, "confidence": {"knn.accuracy": [29, 31]}},
        "knn.accuracy",
    ))  # fmt: skip
    assert found == {"difference": 10.0, "interval": [8, 12], "outcome": "better"}


def test_groups_by_size_and_without_a_verdict_where_there_is_one_class():
    before = np.array([10.0, 20, 30, 40, 50, np.nan])
    after = before + np.array([5, 5, 5, 5, 1, 0])
    groups = np.array(["few", "many", "many", "many", "", "many"])
    classes = np.array(["a", "b", "b", "c", "d", "c"])
    many, few = group_differences(after, before, groups, classes, classes, BOOTSTRAP)
    assert (many["group"], many["images"], many["classes"], many["before"], many["after"]) == ("many", 4, 2, 30, 35)
    assert many["difference"] == {"difference": 5, "interval": [5, 5], "outcome": "better"}
    assert (few["group"], few["difference"]) == ("few", None)
    one_family = group_differences(after, before, groups, classes, np.full(6, "f"), BOOTSTRAP)
    assert [(row["classes"], row["difference"]) for row in one_family] == [(2, None), (1, None)]


def test_a_group_in_which_no_image_has_another_to_find_has_no_mean():
    """nan cannot be written as JSON: one such group would end the stage."""
    alone = np.array([np.nan, np.nan])
    (found,) = group_differences(alone, alone, np.array(["g", "g"]), *2 * [np.array(["a", "b"])], BOOTSTRAP)
    assert (found["before"], found["after"], found["difference"]) == (None, None, None)
