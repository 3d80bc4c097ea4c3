"""What a report was made from."""

from __future__ import annotations

from assets.report.provenance import settings_diff


def test_a_difference_is_a_value_or_a_setting_that_one_side_lacks():
    before, after = {"a": 1, "b": 2, "gone": None}, {"new": None, "b": 3, "a": 1}
    assert settings_diff(before, after) == [
        {"setting": "new", "before": None, "after": None},
        {"setting": "b", "before": 2, "after": 3},
        {"setting": "gone", "before": None, "after": None},
    ]
