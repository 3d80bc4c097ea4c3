"""From what was read to what was kept."""

from __future__ import annotations

from assets.report import funnel


def test_shares_are_of_what_was_read_and_of_what_was_kept():
    splits = [{"split": "train", "images": 30, "classes": 3}, {"split": "test", "images": 10, "classes": 1}]
    view = funnel.funnel_view([("too_small", 8), ("duplicate", 2)], splits)
    assert (view["read"], view["kept"], view["dropped"]) == (50, 40, 10)
    assert [(each["reason"], each["share"]) for each in view["rejected"]] == [("too small", "16"), ("duplicate", "4")]
    assert [each["share"] for each in view["splits"]] == ["75.0", "25.0"]


def test_what_the_stages_left_is_counted(report):
    assert funnel.count_rejected() == [("duplicate", 2), ("undecodable", 1)]
    assert funnel.count_rows() == [
        {"split": "train", "images": 8, "classes": 2},
        {"split": "test", "images": 24, "classes": 6},
        {"split": "library", "images": 4, "classes": 0},
    ]
