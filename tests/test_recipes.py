"""Rows of recipes become models with settings of their own, each after the one that it starts from; wrong rows are named."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from assets.recipes import BASE, WrongRecipes, chain, resolve


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    margin: float = Field(ge=0, lt=1.5)
    guards: dict[str, float]


SECTIONS = {"image_tower": Section(margin=0.1, guards={"spread": 0.5}), "text_tower": Section(margin=0.0, guards={})}


def row(start: str = BASE, **changed: Any) -> dict[str, Any]:
    return {"from": start, "about": "a row", **changed}


def problems(rows: dict[str, dict[str, Any]], measured: list[str]) -> dict[str, str]:
    with pytest.raises(WrongRecipes) as raised:
        resolve({"image_tower": {}, "text_tower": {}} | rows, measured, SECTIONS)
    return dict(raised.value.problems)


def test_a_row_changes_its_own_settings_and_no_others():
    found = resolve({"image_tower": {"plain": row(), "wide": row(margin=0.3)}, "text_tower": {}}, [BASE, "wide"], SECTIONS)
    assert (found["plain"].settings.margin, found["wide"].settings.margin) == (0.1, 0.3)
    assert found["wide"].settings.guards == {"spread": 0.5}
    assert (found[BASE].stage, found["wide"].stage) == ("base_clip", "image_tower")


def test_of_a_setting_with_parts_only_the_named_parts_change():
    sections = SECTIONS | {"image_tower": Section(margin=0.1, guards={"spread": 0.5, "drift": 0.3})}
    found = resolve({"image_tower": {"x": row(guards={"drift": 0.1})}, "text_tower": {}}, [BASE], sections)
    assert found["x"].settings.guards == {"spread": 0.5, "drift": 0.1}


def test_a_recipe_comes_after_the_one_it_starts_from_whatever_the_order_of_the_rows():
    rows = {"image_tower": {"again": row("told"), "first": row()}, "text_tower": {"told": row("first")}}
    found = resolve(rows, [BASE], SECTIONS)
    assert list(found) == [BASE, "first", "told", "again"]
    assert [each.name for each in chain(found, "again")] == [BASE, "first", "told", "again"]


@pytest.mark.parametrize(
    ("rows", "where", "what"),
    [
        ({"wide": row(margn=0.3)}, "recipes.image_tower.wide.margn", "no such setting"),
        ({"wide": row(margin=2.0)}, "recipes.image_tower.wide.margin", "given 2.0"),
        ({"wide": row(margin="wide")}, "recipes.image_tower.wide.margin", "given 'wide'"),
        ({"wide": {"from": BASE}}, "recipes.image_tower.wide.about", "missing"),
        ({"wide": {"about": "a row"}}, "recipes.image_tower.wide.from", "missing"),
        ({"wide": row("nobody")}, "recipes.image_tower.wide.from", "given 'nobody'"),
        ({"base": row()}, "recipes.image_tower.base", "not base or champion"),
        ({"a.b": row()}, "recipes.image_tower.a.b", "letters, digits"),
    ],
)
def test_a_wrong_row_is_named_with_what_was_given(rows: dict[str, Any], where: str, what: str):
    assert what in problems({"image_tower": rows}, [BASE])[where]


def test_a_name_is_taken_once_over_all_stages():
    assert "already" in problems({"image_tower": {"x": row()}, "text_tower": {"x": row()}}, [BASE])["recipes.text_tower.x"]


def test_recipes_that_start_from_each_other_are_refused():
    found = problems({"image_tower": {"a": row("b"), "b": row("a"), "c": row()}}, [BASE])
    assert set(found) == {"recipes.image_tower.a.from", "recipes.image_tower.b.from"}


@pytest.mark.parametrize(("measured", "what"), [(["base", "x"], "given 'x'"), ([], "must be among them"), (["base", "base"], "twice")])
def test_what_is_measured_is_known_and_base_is_among_it(measured: list[str], what: str):
    assert what in problems({}, measured)["recipes.measured"]
