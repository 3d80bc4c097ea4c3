"""python -m assets.commands.readme [--check]: write the report's numbers into README.md between its markers, or fail where they differ.

Only the marked blocks are touched; what the numbers are is the concern of the report and of `make seeds`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets import artifacts
from assets.errors import UserError
from assets.report.measures import COLUMNS, MEASURE_NAMES, RECIPE_MEANINGS, percent, signed, value_of

README = Path("README.md")
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
SEEDS_BEGIN, SEEDS_END = "<!-- seeds:begin -->", "<!-- seeds:end -->"


def figures(metrics: Mapping[str, Any]) -> str:
    """The generated block: the rows of report/metrics.json as a Markdown table, and what its numbers mean."""
    lines = [
        f"| recipe | what it is | {' | '.join(MEASURE_NAMES[key] for key in COLUMNS)} |",
        f"|---|---|{'---:|' * len(COLUMNS)}",
    ]
    for row in metrics["rows"]:
        cells = " | ".join(_cell(row, key) for key in COLUMNS)
        lines.append(f"| `{row['recipe']}` | {RECIPE_MEANINGS[row['recipe']]} | {cells} |")
    counts, level = metrics["counts"], 100 * metrics["rows"][0]["confidence"]["level"]
    lines += [
        "",
        f"Percent, measured on {counts['images']:,} test images of {counts['classes']:,} classes that training never saw. In brackets the"
        f" difference to `base` in points; a tie is a difference that its {level:g} % bootstrap interval does not tell from 0.",
    ]
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = value_of(row, key)
    difference = row["confidence"]["against_base"].get(key)
    if value is None:
        return "–"
    if row["recipe"] == "base" or difference is None:
        return percent(value)
    return f"{percent(value)} ({'tie' if difference['outcome'] == 'tie' else signed(difference['difference'])})"


def seeds_block(found: Mapping[str, Any] | None, metrics: Mapping[str, Any]) -> str:
    """The generated block of several seeds: seeds.json as a Markdown table, and how to read its intervals; None: not run yet."""
    if found is None:
        return "`make seeds N=3` has not been run yet: the numbers above are of one seed."
    lines = [
        f"| recipe | {' | '.join(MEASURE_NAMES[key] for key in COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    for row in found["rows"]:
        lines.append(f"| `{row['recipe']}` | {' | '.join(_spread_cell(row['measures'][key]) for key in COLUMNS)} |")
    count, missing = len(found["seeds"]), found["missing"]
    of = f"{count} seeds" if not missing else f"{count} of {count + len(missing)} seeds (failed: {', '.join(map(str, missing))})"
    lines += [
        "",
        f"Mean over {of} ± half of its {100 * found['level']:g} % t-interval, in percent. Seeds vary which classes are test classes, the"
        " initialisation and the order of training. In brackets the difference to `base` of the same seed in points, with its own interval;"
        " a tie is a difference whose interval holds 0 or whose sign is not the same in every seed.",
    ]
    if 0 in found["seeds"] and not _same_as_report(found, metrics):
        lines += ["", "These seeds were run before the pipeline's last change: seed 0 among them is not the table at the top."]
    return "\n".join(lines)


def _spread_cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    against = entry.get("against_base")
    value = f"{percent(entry['mean'])} ± {_half(entry)}"
    if against is None:
        return value
    return f"{value} (tie)" if against["outcome"] == "tie" else f"{value} ({signed(against['mean'])} ± {_half(against)})"


def _half(entry: Mapping[str, Any]) -> str:
    return percent((entry["interval"][1] - entry["interval"][0]) / 2)


def _same_as_report(found: Mapping[str, Any], metrics: Mapping[str, Any]) -> bool:
    """Whether seed 0, which has the settings of params.yaml, scored what the report says."""
    first, rows = found["seeds"].index(0), {row["recipe"]: row for row in metrics["rows"]}
    return all(
        entry is None or round(entry["values"][first] - (value_of(rows[row["recipe"]], key) or 0.0), 3) == 0
        for row in found["rows"]
        for key, entry in row["measures"].items()
    )


def with_figures(text: str, metrics: Mapping[str, Any], seeds: Mapping[str, Any] | None) -> str:
    """`text` with the blocks between its markers made anew. UserError unless there is exactly one pair of each."""
    text = _with_block(text, BEGIN, END, figures(metrics))
    return _with_block(text, SEEDS_BEGIN, SEEDS_END, seeds_block(seeds, metrics))


def _with_block(text: str, begin: str, end: str, content: str) -> str:
    block = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(block.findall(text)) != 1 or text.count(begin) != 1 or text.count(end) != 1:
        raise UserError(f"{README} needs one {begin} and after it one {end}; between them the figures are written.")
    return block.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def missing_pictures(text: str) -> list[str]:
    """Pictures of the report that the text shows and that are not there."""
    shown = re.findall(rf"\(({re.escape(artifacts.REPORT.as_posix())}/[^)\s]+\.png)\)", text)
    return [path for path in shown if not Path(path).exists()]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if not artifacts.METRICS.exists():
            raise UserError(f"no {artifacts.METRICS}. `dvc repro report` makes it.")
        text = README.read_text(encoding="utf-8")
        seeds = artifacts.read_json(artifacts.SEEDS) if artifacts.SEEDS.exists() else None
        wanted = with_figures(text, artifacts.read_json(artifacts.METRICS), seeds)
        if missing := missing_pictures(text):
            raise UserError(f"{README} shows {', '.join(missing)}, which is not there. `dvc repro report` makes it.")
        if arguments and wanted != text:
            raise UserError(
                f"the figures in {README} are not those of {artifacts.METRICS} and {artifacts.SEEDS}. `make readme` writes them."
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wanted != text:
        with artifacts.replacing(README) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
        print(f"{README}: figures written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
