"""The rows of params.yaml's section `recipes`, resolved: which stage makes each, from which model, with which settings.

What a row changes is any setting of its stage's section; `from` and `about` are the row's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

BASE = "base"  # made by the stage base_clip, not by a row
BASE_ABOUT = "the CLIP to start from"
CHAMPION = "champion"  # what its evaluation and its row are called
NOT_A_NAME = frozenset({BASE, CHAMPION})
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
OWN = ("from", "about")


@dataclass(frozen=True)
class Recipe:
    """One model that the pipeline makes. `settings` is its stage's section with the row's own values in it; None for base."""

    name: str
    stage: str
    start: str | None  # the recipe whose model it starts from
    about: str
    settings: Any


class WrongRecipes(Exception):
    """`problems` names each wrong row: (setting, what is wrong with it)."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{where}: {what}" for where, what in problems))
        self.problems = problems


def resolve(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], measured: list[str], sections: Mapping[str, BaseModel]
) -> dict[str, Recipe]:
    """Every recipe by name, base first, each after the one it starts from. `rows` by stage, `sections` the settings of these stages.

    Raises WrongRecipes.
    """
    problems: list[tuple[str, str]] = []
    found = {BASE: Recipe(BASE, "base_clip", None, BASE_ABOUT, None)}
    for stage, own in rows.items():
        for name, row in own.items():
            where = f"recipes.{stage}.{name}"
            if not NAME.fullmatch(name) or name in NOT_A_NAME:
                problems.append((where, f"a recipe's name is of letters, digits, _ and -, and not {' or '.join(sorted(NOT_A_NAME))}"))
            elif name in found:
                problems.append((where, "a recipe of this name is there already"))
            if name in found:
                continue
            for key in OWN:
                if not isinstance(row.get(key), str) or not row[key].strip():
                    problems.append((f"{where}.{key}", "missing" if key not in row else f"given {row[key]!r}; it must be words"))
            changed = {key: value for key, value in row.items() if key not in OWN}
            settings, wrong = _changed(sections[stage], changed)
            problems += [(f"{where}.{key}", what) for key, what in wrong]
            found[name] = Recipe(name, stage, row.get("from"), str(row.get("about")), settings)
    for recipe in found.values():
        if isinstance(recipe.start, str) and recipe.start not in found:
            problems.append((f"recipes.{recipe.stage}.{recipe.name}.from", f"given {recipe.start!r}; known are {', '.join(found)}"))
    problems += [("recipes.measured", f"given {name!r}; known are {', '.join(found)}") for name in measured if name not in found]
    if len(set(measured)) < len(measured):
        problems.append(("recipes.measured", "a recipe is listed twice"))
    if BASE not in measured:
        problems.append(("recipes.measured", f"{BASE} must be among them, for the others are compared with it"))
    if problems:
        raise WrongRecipes(problems)
    ordered: dict[str, Recipe] = {}
    while len(ordered) < len(found):
        ready = [each for each in found.values() if each.name not in ordered and (each.start is None or each.start in ordered)]
        if not ready:
            circle = [each for each in found.values() if each.name not in ordered]
            raise WrongRecipes([(f"recipes.{each.stage}.{each.name}.from", "it starts from itself, through others") for each in circle])
        ordered |= {each.name: each for each in ready}
    return ordered


def chain(recipes: Mapping[str, Recipe], name: str) -> list[Recipe]:
    """The recipes that a model is made by, base first, `name` last."""
    recipe = recipes[name]
    return [*(chain(recipes, recipe.start) if recipe.start else []), recipe]


def _changed(section: BaseModel, changed: Mapping[str, Any]) -> tuple[BaseModel, list[tuple[str, str]]]:
    """The section with other values, and what is wrong with them. Of a setting that has parts, only the named parts change."""
    try:
        return type(section).model_validate(_merged(section.model_dump(), changed)), []
    except ValidationError as error:
        return section, list(_described(error))


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(old[key], new[key]) for key in new if isinstance(new[key], Mapping) and isinstance(old.get(key), Mapping)}
    return {**old, **new, **both}


def _described(error: ValidationError) -> Iterator[tuple[str, str]]:
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            yield key, "no such setting of this stage (misspelt?)"
        else:
            yield key, f"given {problem['input']!r}; {problem['msg']}"
