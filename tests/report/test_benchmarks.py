"""The table beside the paper's."""

from __future__ import annotations

from typing import Any

from assets.report.benchmarks import NOT_MEASURED, table_1_view
from assets.report.paper import PAPER, PAPER_AVERAGES
from assets.table_1 import COLUMNS


def found(value: float | None) -> dict[str, Any]:
    return {"table_1": {"image_to_image": {"gpr1200": value}, "average": None}, "skipped": {"instre": "not there"}}


def test_every_row_of_the_paper_has_a_value_for_every_column():
    assert {len(row) for row in PAPER.values()} == {len(COLUMNS)}
    assert PAPER.keys() == PAPER_AVERAGES.keys()


def test_a_recipe_of_another_name_has_a_row_of_its_own_and_none_of_the_paper():
    view = table_1_view({"wide": found(71.25), "gpr": found(70.0)}, ["wide", "gpr", "base"])
    assert [(row["recipe"], row["of"]) for row in view["rows"]] == [
        ("wide", "here"),
        ("gpr", "here"),
        ("gpr", "paper"),
        ("base", "paper"),
    ]
    assert view["rows"][0]["cells"][:2] == ["71.2", NOT_MEASURED]
    assert view["notes"] == ["The average that the paper prints for gpr, 68.4, is not the mean of its columns, 72.8."]
    assert view["skipped"] == ["instre"]


def test_the_paper_alone_is_not_shown():
    view = table_1_view({"base": found(None)}, ["base", "gpr"])
    assert (view["measured"], view["rows"], view["notes"]) == (False, [], [])


def test_groups_of_columns_stand_above_their_own_columns():
    groups = table_1_view({"base": found(1.0)}, ["base"])["groups"]
    families = [column.family for column in COLUMNS]
    assert families == sorted(families, key=list(dict.fromkeys(families)).index)  # each family's columns stand together
    assert [(group["name"], group["columns"]) for group in groups] == [
        ("image→image", 4),
        ("k-NN", 4),
        ("zero-shot", 4),
        ("text→image R@5", 2),
    ]
