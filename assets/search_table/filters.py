"""The filter language of `where`: conditions over the table's columns, read into a tree, checked against a list, and written out again.

What LanceDB gets is written by this module, never the text that a user gave. So a filter can only compare columns with values: no function
but lower and array_has, no query, no second statement.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from assets.errors import UserError
from assets.search_table.table import METADATA, quoted

MAX_CHARACTERS = 4000
COLUMNS = [name for name in METADATA.names if name != "image"]
MAX_DEPTH = 20  # of parentheses in the SQL that is written: Lance's parser takes 3 times as long for each further NOT beyond some 24
PARTS = {"this", "expression", "expressions", "low", "high", "is_string", "negate"}  # of a node; one with any other part is refused
EXAMPLE = "source = 'noto' and width >= 64"
LANGUAGE = (
    "and, or, not, (), =, <>, <, <=, >, >=, in (…), between … and …, like, ilike, is null, lower(column), array_has(captions, 'text')"
)


def checked_filter(where: str) -> str:
    """The same condition in SQL of our own. UserError, which names the columns and the language, for all that is no such condition."""
    if not isinstance(where, str):
        raise UserError(f"a filter is a str, given {type(where).__name__}. {how_to_filter()}")
    if len(where) > MAX_CHARACTERS:
        raise UserError(f"the filter has {len(where)} characters; at most {MAX_CHARACTERS} are read. {how_to_filter()}")
    return _checked(where)


def how_to_filter() -> str:
    columns = ", ".join(f"{field.name} {field.type}" for field in METADATA if field.name in COLUMNS)
    return f'A filter is a condition such as "{EXAMPLE}". It knows {LANGUAGE}, and the columns {columns}.'


def refused(where: str, why: str) -> UserError:
    shown = where if len(where) <= 200 else f"{where[:200]}…"
    return UserError(f"the table does not understand the filter {shown!r}: {why.rstrip('.')}. {how_to_filter()}")


@lru_cache(maxsize=256)
def _checked(where: str) -> str:
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        found = sqlglot.parse(where, read="duckdb")
    except (SqlglotError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else _first_line(error)
        raise refused(where, why) from None
    if len(found) != 1 or found[0] is None:
        raise refused(where, "it is empty" if not any(found) else "it holds more than one statement")
    try:
        written = _written(found[0], where)
    except RecursionError:
        raise refused(where, "it is nested too deeply") from None
    if _depth(written) > MAX_DEPTH:
        raise refused(where, "it is nested too deeply")
    return written


def _depth(sql: str) -> int:
    """Of its parentheses, those in quotes left out."""
    deepest = now = 0
    for part in re.sub(r"'(?:[^']|'')*'", "", sql):
        now += (part == "(") - (part == ")")
        deepest = max(deepest, now)
    return deepest


def _first_line(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if details:
        return f"{details[0]['description']}, at {details[0]['highlight']!r}" if details[0].get("highlight") else details[0]["description"]
    return str(error).splitlines()[0]


def _written(node: Any, where: str) -> str:
    """SQL of one condition or value; the parentheses are ours."""
    from sqlglot import exp

    def part(name: str) -> str:
        return _written(node.args[name], where)

    pairs = {exp.EQ: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.Like: "LIKE", exp.ILike: "ILIKE"}
    kind = type(node)
    if others := {name for name, value in node.args.items() if value} - PARTS:
        raise refused(where, f"{node.sql()[:80]!r} has {', '.join(sorted(others))}, which is not in the language")
    if node.args.get("negate"):
        return f"(NOT {_written(_affirmed(node), where)})"
    if kind in pairs:
        return f"({part('this')} {pairs[kind]} {part('expression')})"
    if kind in (exp.And, exp.Or):
        word = " AND " if kind is exp.And else " OR "  # one pair of parentheses for a whole chain: Lance's parser reads some 45 deep
        return f"({word.join(_written(each, where) for each in node.flatten())})"
    if kind is exp.Not:
        return f"(NOT {part('this')})"
    if kind is exp.Paren:
        return part("this")
    if kind is exp.Is and isinstance(node.expression, exp.Null):
        return f"({part('this')} IS NULL)"
    if kind is exp.Between:
        return f"({part('this')} BETWEEN {part('low')} AND {part('high')})"
    if kind is exp.In and node.expressions:
        return f"({part('this')} IN ({', '.join(_written(value, where) for value in node.expressions)}))"
    if kind is exp.Lower:
        return f"lower({part('this')})"
    if kind is exp.ArrayContains:
        return f"array_has({part('this')}, {part('expression')})"
    if kind is exp.Literal:
        return quoted(node.this) if node.is_string else _number(node.this, where)
    if kind is exp.Neg and isinstance(node.this, exp.Literal) and not node.this.is_string:
        return f"-{_number(node.this.this, where)}"
    if kind is exp.Column and isinstance(node.this, exp.Identifier):
        if node.name not in COLUMNS:
            raise refused(where, f"there is no column {node.name!r} to filter by")
        return f"`{node.name}`"
    raise refused(where, f"{node.sql()[:80]!r} is not in the language")


def _affirmed(node: Any) -> Any:
    """`like` for `not like`, which is one node."""
    return type(node)(**{name: value for name, value in node.args.items() if name != "negate"})


def _number(text: str, where: str) -> str:
    try:
        float(text)
    except ValueError:
        raise refused(where, f"{text!r} is no number") from None
    return text
