"""python -m assets.report.readme [--check]: write the report's numbers into README.md between its markers, or fail where they differ.

Only the marked block is touched; what the numbers are is the report's concern.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets import artifacts
from assets.errors import UserError
from assets.report.measures import MEASURE_NAMES, RECIPE_MEANINGS, percent, signed, value_of

README = Path("README.md")
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
COLUMNS = ("image_to_image.map", "image_to_image.recall_at_1", "knn.accuracy", "zero_shot.accuracy", "text_to_image.recall_at_5", "average")


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


def with_figures(text: str, metrics: Mapping[str, Any]) -> str:
    """`text` with the block between its markers made anew. UserError unless there is exactly one pair of markers."""
    block = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(block.findall(text)) != 1 or text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{README} needs one {BEGIN} and after it one {END}; between them the figures are written.")
    return block.sub(lambda _: f"{BEGIN}\n{figures(metrics)}\n{END}", text)


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
        wanted = with_figures(text, artifacts.read_json(artifacts.METRICS))
        if missing := missing_pictures(text):
            raise UserError(f"{README} shows {', '.join(missing)}, which is not there. `dvc repro report` makes it.")
        if arguments and wanted != text:
            raise UserError(f"the figures in {README} are not those of {artifacts.METRICS}. `make readme` writes them.")
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
