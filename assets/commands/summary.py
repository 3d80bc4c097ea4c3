"""python -m assets.commands.summary: what `make demo` ends with: the rows, where things are, and what to try next."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assets import artifacts
from assets.measures import COLUMNS, percent, signed, value_of
from assets.recipes import BASE

COLORS = {"better": "green", "worse": "red", "tie": "dim"}
WIDTH = 88  # of the table; a narrower terminal or a pipe wraps nothing


def rows_table(metrics: Mapping[str, Any]) -> Table:
    """One row per recipe in the order of metrics.json, but base first."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("\nrecipe", no_wrap=True)
    for measure in COLUMNS:
        searched, _, measured = measure.name.rpartition(" ")
        table.add_column(f"{searched}\n{measured}", justify="right", no_wrap=True)
    for row in sorted(metrics["rows"], key=lambda row: row["recipe"] != BASE):  # else in their order
        table.add_row(row["recipe"], *(_cell(row, measure.key) for measure in COLUMNS))
    return table


def _cell(row: Mapping[str, Any], key: str) -> Text:
    value, difference = value_of(row, key), row["confidence"]["against_base"].get(key)
    cell = Text("–" if value is None else percent(value))
    if row["recipe"] == BASE or not difference:
        return cell.append(" " * 6)  # the values stand below each other
    outcome = difference["outcome"]
    return cell.append(f" {'tie' if outcome == 'tie' else signed(difference['difference']):>5}", COLORS[outcome])


def pair_lines(metrics: Mapping[str, Any]) -> list[str]:
    """For each pair of recipes: where the first is better or worse than the second."""
    lines = []
    for pair in metrics["pairs"]:
        found = [(measure.name, pair["differences"].get(measure.key)) for measure in COLUMNS]
        apart = [f"{name} {signed(entry['difference'])}" for name, entry in found if entry and entry["outcome"] != "tie"]
        told = f"{', '.join(apart)}, the rest ties" if apart else "ties everywhere"
        lines.append(f"{pair['recipe']} against {pair['against']}: {told}")
    return lines


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """What was decided, and the reason where the rows do not show it."""
    if verdict["decision"] != "publish":
        return [f"recipe   {verdict['recipe']}, held back: {verdict['reasons'][-1]}"]
    override = verdict["override_reason"]
    return [f"recipe   {verdict['recipe']}, published" + (f" though the gate said no: {override}" if override else "")]


def table_line(verdict: Mapping[str, Any]) -> str:
    if not artifacts.LANCEDB.exists():
        return f"none yet; {'a recipe that is not held back makes it' if verdict['decision'] != 'publish' else '`make demo` makes it'}"
    kept = ", as it was before" if verdict["decision"] != "publish" else ""
    return f"{artifacts.LANCEDB} (LanceDB, table {artifacts.TABLE_NAME}){kept}"


def report_line() -> str:
    if not artifacts.REPORT_PAGE.exists():
        return "none yet; `make report` makes it"
    return f"{artifacts.REPORT_PAGE}, {artifacts.REPORT_PAGE.resolve().as_uri()}"


def main() -> int:
    for needed in (artifacts.METRICS, artifacts.VERDICT):
        if not needed.exists():
            print(f"error: no {needed}. `dvc repro promotion` makes it.", file=sys.stderr)
            return 1
    metrics, verdict = artifacts.read_json(artifacts.METRICS), artifacts.read_json(artifacts.VERDICT)
    counts = metrics["counts"]
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print()
    console.print(rows_table(metrics))
    for line in pair_lines(metrics):
        console.print(line, soft_wrap=True)
    level = 100 * metrics["rows"][0]["confidence"]["level"]
    console.print(f"percent on {counts['images']:,} images of {counts['classes']:,} unseen classes, and points against {BASE}", style="dim")
    console.print(f"tie: the {level:g} % interval of the difference holds 0 (bootstrap over whole families of classes)", style="dim")
    console.print()
    for line in verdict_lines(verdict):
        console.print(line, soft_wrap=True)
    console.print(f"report   {report_line()}", soft_wrap=True)
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
