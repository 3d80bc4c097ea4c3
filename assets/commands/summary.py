"""python -m assets.commands.summary: what `make demo` ends with: the five rows, where things are, and what to try next."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assets import artifacts
from assets.report.measures import COLUMNS, MEASURE_NAMES, percent, signed, value_of

COLORS = {"better": "green", "worse": "red", "tie": "dim"}
WIDTH = 88  # of the table; a narrower terminal or a pipe wraps nothing


def rows_table(metrics: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("\nrecipe", no_wrap=True)
    for key in COLUMNS:
        searched, _, measured = MEASURE_NAMES[key].rpartition(" ")
        table.add_column(f"{searched}\n{measured}", justify="right", no_wrap=True)
    for row in metrics["rows"]:
        table.add_row(row["recipe"], *(_cell(row, key) for key in COLUMNS))
    return table


def _cell(row: Mapping[str, Any], key: str) -> Text:
    value, difference = value_of(row, key), row["confidence"]["against_base"].get(key)
    cell = Text("–" if value is None else percent(value))
    if row["recipe"] == "base" or not difference:
        return cell.append(" " * 6)  # the values stand below each other
    outcome = difference["outcome"]
    return cell.append(f" {'tie' if outcome == 'tie' else signed(difference['difference']):>5}", COLORS[outcome])


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """What was decided, and why where that is not plain from the rows."""
    if verdict["decision"] != "publish":
        return [f"recipe   {verdict['recipe']}, held back: {verdict['reasons'][-1]}"]
    override = verdict["override_reason"]
    return [f"recipe   {verdict['recipe']}, published" + (f" though the gate said no: {override}" if override else "")]


def table_line(verdict: Mapping[str, Any]) -> str:
    if not artifacts.LANCEDB.exists():
        return f"none yet; {'a recipe that is not held back makes it' if verdict['decision'] != 'publish' else '`make demo` makes it'}"
    kept = ", as it was before" if verdict["decision"] != "publish" else ""
    return f"{artifacts.LANCEDB} (LanceDB, table {artifacts.TABLE_NAME}){kept}"


def main() -> int:
    for needed in (artifacts.METRICS, artifacts.VERDICT):
        if not needed.exists():
            print(f"error: no {needed}. `dvc repro report` makes it.", file=sys.stderr)
            return 1
    metrics, verdict = artifacts.read_json(artifacts.METRICS), artifacts.read_json(artifacts.VERDICT)
    counts = metrics["counts"]
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print()
    console.print(rows_table(metrics))
    level = 100 * metrics["rows"][0]["confidence"]["level"]
    console.print(f"percent on {counts['images']:,} images of {counts['classes']:,} unseen classes, and points against base", style="dim")
    console.print(f"tie: the {level:g} % interval of the difference holds 0 (whole classes drawn anew)", style="dim")
    console.print()
    for line in verdict_lines(verdict):
        console.print(line, soft_wrap=True)
    console.print(f"report   {artifacts.REPORT_PAGE}, {artifacts.REPORT_PAGE.resolve().as_uri()}", soft_wrap=True)
    console.print(f"table    {table_line(verdict)}")
    console.print()
    console.print("Try next", style="bold")
    for command, purpose in (
        ('make search Q="a red heart"', "ask the table in words"),
        ("make ui", "see and run the pipeline in Dagster"),
        (".venv/bin/dvc metrics diff", "what a changed setting did, after make demo"),
    ):
        console.print(f"  {command:<30}{purpose}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
