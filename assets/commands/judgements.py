"""python -m assets.commands.judgements: ask the judged queries of every published version again, and compare its hits with the judgements.

What people judge changes with each click, so no stage of the pipeline depends on it: this command reads data/judgements.jsonl as it is
now, and each version is asked by its own model. Whether a picture answers a query is the same whatever model found it, so a judgement
counts for every version.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from assets import artifacts
from assets.errors import UserError
from assets.metrics.judged import agreement, mean, precision
from assets.search_table.judgements import read_lines
from assets.search_table.query import search
from assets.search_table.table import open_version
from assets.search_table.versions import Version, read_versions

K = 10  # hits of a query, as many as precision looks at
FIELDS = {"text": str, "less": list, "like": list, "by": str, "where": str}  # of a query that can be asked again
HOW_TO_JUDGE = "`make serve` opens a page whose hits have ✓ and ✗."


@dataclass
class Judged:
    """What people said of one query's hits, by id."""

    query: dict[str, Any]
    right: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """How one version fares. Measures are None where no query has one."""

    version: Version
    queries: int
    precision: float | None
    agreement: float | None
    unjudged: float | None  # share of the first K hits
    gone: int  # judged pictures that this version has not
    refused: dict[str, str]  # queries that it cannot answer, as JSON, and why


def judged_queries(lines: list[dict[str, Any]]) -> tuple[list[Judged], int]:
    """(what holds of each query, how many hits a later line called otherwise than an earlier one: the later holds)"""
    found: dict[str, Judged] = {}
    changed = set()
    for line in lines:
        key = json.dumps(line["query"], sort_keys=True)
        judged = found.setdefault(key, Judged(line["query"]))
        if judged.right.get(line["id"], line["right"]) != line["right"]:
            changed.add((key, line["id"]))
        judged.right[line["id"]] = line["right"]
    return list(found.values()), len(changed)


def measured(version: Version, queries: list[Judged]) -> Row:
    precisions, agreements, shares = [], [], []
    gone, refused = 0, {}
    for judged in queries:
        try:
            first = _ids(version, judged, K)
            ranked = _ids(version, judged, len(judged.right), among=list(judged.right))
        except UserError as error:
            refused[json.dumps(judged.query, ensure_ascii=False)] = str(error)
            continue
        hits = [judged.right.get(key) for key in first]
        precisions.append(precision(hits))
        agreements.append(agreement([judged.right[key] for key in ranked]))
        shares.append(hits.count(None) / len(hits) if hits else None)
        gone += len(judged.right) - len(ranked)
    return Row(version, len(precisions), mean(precisions), mean(agreements), mean(shares), gone, refused)


def _ids(version: Version, judged: Judged, k: int, among: list[str] | None = None) -> list[str]:
    """UserError for a query that cannot be asked again."""
    asked = judged.query
    if "picture" in asked:
        raise UserError("asked by a picture, of which only a hash is kept")
    kinds = {name: type(value) for name, value in asked.items()}
    lists = [each for name in ("less", "like") for each in asked.get(name, []) if kinds[name] is list]
    if not kinds.items() <= FIELDS.items() or not all(isinstance(each, str) for each in lists):
        raise UserError("not a query of the page")
    query: list[Any] = [asked["text"]] if asked.get("text") else []
    query += [(words, -1.0) for words in asked.get("less", [])]
    hits = search(
        query or None,
        k,
        asked.get("where") or None,
        like=asked.get("like") or None,
        by=asked.get("by", "vector"),
        among=among,
        version=version.number,
    )
    found: list[str] = hits["id"].to_pylist()
    return found


def show(rows: list[Row], console: Console) -> None:
    table = Table(
        "version", "published as", "model", "queries", f"right of the judged first {K}", "right before wrong", "unjudged", box=None
    )
    for row in rows:
        name = f"{row.version.publish}{' ← visible' if row.version.until is None else ''}"
        shares = [_percent(value) for value in (row.precision, row.agreement, row.unjudged)]
        table.add_row(str(row.version.number), name, row.version.model or "", str(row.queries), *shares)
    if not console.is_terminal:  # whoever reads a pipe wants whole lines
        console.width = max(console.width, console.measure(table, options=console.options.update(max_width=10_000)).maximum)
    console.print(table)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def main() -> int:
    console = Console(markup=False, emoji=False, highlight=False)
    try:
        lines, broken = read_lines(artifacts.JUDGEMENTS)
        if not lines:
            raise UserError(f"{artifacts.JUDGEMENTS} holds no judgements{f', and {broken} broken lines' if broken else ''}. {HOW_TO_JUDGE}")
        latest = {version.publish: version for version in read_versions(open_version()) if version.publish}
        queries, changed = judged_queries(lines)
        rows = [measured(version, queries) for version in latest.values()]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    show(rows, console)
    said = [
        "Right before wrong: of all pairs of a right and a wrong picture of one query, in which the right one is nearer; 50 % is chance.",
        f"Unjudged: share of the first {K} hits that nobody has judged. Where it is high, judge more before you compare versions.",
    ]
    if broken:
        said.append(f"{broken} lines of {artifacts.JUDGEMENTS} are broken and were left out.")
    if changed:
        said.append(f"{changed} hits were judged both ways; the later judgement counts.")
    for row in rows:
        if row.gone:
            said.append(f"{row.version.publish}: {row.gone} judged pictures are not in this version, or not within the query's filter.")
    why = Counter(reason for row in rows for reason in set(row.refused.values()))
    for reason in why:
        count = len({query for row in rows for query, given in row.refused.items() if given == reason})
        said.append(f"{count} queries were left out: {reason}.".replace("..", "."))
    for sentence in said:
        console.print(sentence, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
