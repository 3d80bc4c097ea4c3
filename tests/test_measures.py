"""The table of measures is whole: what reads it finds one row for each thing it asks for."""

from __future__ import annotations

import pytest

from assets.evaluations import PER_CLASS_SCHEMA, PER_QUERY_SCHEMA
from assets.measures import AVERAGED, COLUMNS, FAMILY_NAMES, GATED, MEASURES, PAIRED, SHOWN, known_value, signed, value_of


def test_keys_are_unique_and_families_have_names():
    assert len({measure.key for measure in SHOWN}) == len(SHOWN)
    assert GATED.keys() == FAMILY_NAMES.keys()


def test_a_paired_measure_has_a_column_of_the_table_of_its_unit():
    for measure in PAIRED:
        assert measure.column in {"image": PER_QUERY_SCHEMA, "class": PER_CLASS_SCHEMA}[measure.unit].names


def test_the_average_is_of_four_families_that_every_query_has():
    assert AVERAGED == ("image_to_image.map", "knn.accuracy", "zero_shot.accuracy", "text_to_image.recall_at_5")
    assert set(AVERAGED) <= {measure.key for measure in PAIRED}
    assert [measure.key for measure in COLUMNS if measure not in MEASURES] == ["average"]


def test_values_are_read_from_rows():
    row = {"recipe": "x", "knn": {"accuracy": 1}, "text_to_image": {"caption_recall_at_5": None}, "average": 2.5}
    assert (value_of(row, "knn.accuracy"), value_of(row, "average")) == (1.0, 2.5)
    assert value_of(row, "text_to_image.caption_recall_at_5") is value_of(row, "zero_shot.accuracy") is None
    with pytest.raises(ValueError, match=r"zero_shot\.accuracy of x"):
        known_value(row, "zero_shot.accuracy")


def test_a_difference_has_its_sign_and_nothing_has_none():
    assert [signed(value) for value in (1.25, -1.25, 0.04, -0.04)] == ["+1.2", "−1.2", "±0.0", "±0.0"]
