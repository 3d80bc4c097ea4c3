"""python -m assets.commands.record [--check]: copy the last run's figures and pictures into data/record and write them into README.md.

With --check nothing is written: README must agree with data/record, whatever later runs have made. Measuring is the pipeline's.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from assets import artifacts
from assets.commands.gains import GAINS, gains_table
from assets.errors import UserError
from assets.measures import COLUMNS, percent, signed, value_of
from assets.params import read_params
from assets.recipes import BASE, CHAMPION

README = Path("README.md")
METRICS, SEEDS, ABOUT = (artifacts.RECORD / name for name in ("metrics.json", "seeds.json", "recipes.json"))
PLOTS = artifacts.RECORD / "plots"


def record() -> None:
    """Replace what data/record has by the figures of the last run, of `make seeds` where there are any, and by README's pictures.

    UserError where the run has not made one of them.
    """
    pictures = {PLOTS / name: artifacts.PLOTS / name for name in shown_pictures(README.read_text(encoding="utf-8"))}
    if missing := [path.as_posix() for path in (artifacts.METRICS, *pictures.values()) if not path.exists()]:
        raise UserError(f"no {', '.join(missing)}. `dvc repro report` makes what is missing.")
    params, _ = read_params()
    metrics = artifacts.read_json(artifacts.METRICS)
    rows = [row["recipe"] for row in metrics["rows"]]
    about = {name: recipe.about for name, recipe in params.recipe.items()}
    for row in metrics["rows"]:
        if "champion" in row:
            about[row["recipe"]] = f"the champion, {row['champion']['recipe']}, on the same pictures"
    if unknown := [name for name in rows if name not in about]:
        raise UserError(f"{artifacts.METRICS} has rows that params.yaml lacks: {', '.join(unknown)}. `dvc repro report` makes it anew.")
    artifacts.write_json(METRICS, metrics)
    artifacts.write_json(ABOUT, {name: about[name] for name in rows})
    if artifacts.SEEDS.exists():
        artifacts.write_json(SEEDS, artifacts.read_json(artifacts.SEEDS))
    with artifacts.replacing(PLOTS) as folder:
        folder.mkdir()
        for target, source in pictures.items():
            shutil.copyfile(source, folder / target.name)


def from_record(text: str) -> str:
    """README with the blocks that data/record gives. UserError where the record or a picture of it is missing."""
    pictures = [PLOTS / name for name in shown_pictures(text)]
    if missing := [path.as_posix() for path in (METRICS, ABOUT, *pictures) if not path.exists()]:
        raise UserError(f"{README} shows {', '.join(missing)}: not there. `make record` writes what it shows.")
    metrics, about = artifacts.read_json(METRICS), artifacts.read_json(ABOUT)
    seeds = artifacts.read_json(SEEDS) if SEEDS.exists() else None
    blocks = {"figures": figures(metrics, seeds, about), "run": run_block(metrics, seeds)}
    if GAINS.exists():
        blocks["gains"] = "\n".join(gains_table(artifacts.read_json(GAINS)))
    return with_blocks(text, blocks)


def shown_pictures(text: str) -> list[str]:
    """The names of the recorded pictures that the text shows."""
    return re.findall(rf"\({re.escape(PLOTS.as_posix())}/([^)/\s]+\.png)\)", text)


def figures(metrics: Mapping[str, Any], seeds: Mapping[str, Any] | None, about: Mapping[str, str]) -> str:
    """The first block: the table over seeds where they were run, else that of one run, with a sentence that it is of one seed."""
    table = run_table(metrics) if seeds is None else seeds_table(seeds)
    shown = [row["recipe"] for row in (metrics if seeds is None else seeds)["rows"]]
    words = [f"`{name}`: {about[name]}" for name in shown if name in about]
    one_seed = [] if seeds is not None else ["", "These are the numbers of one seed; another seed moves all of them."]
    return "\n".join([*table, "", f"{'; '.join(words)}.", *one_seed])


def run_block(metrics: Mapping[str, Any], seeds: Mapping[str, Any] | None) -> str:
    """The second block: the one run that params.yaml describes; without seeds it is the first block already."""
    if seeds is None:
        return "`make seeds N=3` has not been run yet: the table at the top is of one seed."
    lines = ["One run, with the seeds of params.yaml:", "", *run_table(metrics)]
    if 0 in seeds["seeds"] and not _same_as_run(seeds, metrics):
        lines += ["", "The seeds of the table at the top were run with an earlier pipeline: seed 0 among them is not this run."]
    return "\n".join(lines)


def run_table(metrics: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: one row per recipe of metrics.json, and what its numbers mean."""
    counts, level = metrics["counts"], 100 * metrics["rows"][0]["confidence"]["level"]
    return [
        *_heading(),
        *(_line(f"`{row['recipe']}`", [_cell(row, measure.key) for measure in COLUMNS]) for row in metrics["rows"]),
        *_pair_lines(metrics["pairs"], lambda entry: signed(entry["difference"])),
        "",
        f"Percent, measured on {counts['images']:,} test images of {counts['classes']:,} classes that training never saw. In brackets the"
        f" difference to `{BASE}` in points; a tie is a difference whose {level:g} % bootstrap interval holds 0.",
    ]


def seeds_table(found: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: one row per recipe of seeds.json, and how to read its intervals."""
    count, missing = len(found["seeds"]), found["missing"]
    of = f"{count} seeds" if not missing else f"{count} of {count + len(missing)} seeds (failed: {', '.join(map(str, missing))})"
    return [
        *_heading(),
        *(_line(f"`{row['recipe']}`", [_spread_cell(row["measures"].get(measure.key)) for measure in COLUMNS]) for row in found["rows"]),
        *_pair_lines(found["pairs"], lambda entry: f"{signed(entry['mean'])} ± {_half(entry)}"),
        "",
        f"Percent on classes that training never saw: mean over {of} ± half of its {100 * found['level']:g} % t-interval. Seeds vary which"
        f" classes are test classes, the initialisation and the order of training. In brackets the difference to `{BASE}` of the same seed"
        " in points, with its own interval; a tie is a difference whose interval holds 0 or whose sign is not the same in every seed.",
    ]


def _heading() -> list[str]:
    return [f"| recipe | {' | '.join(measure.name for measure in COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]


def _line(head: str, cells: Sequence[str]) -> str:
    return f"| {head} | {' | '.join(cells)} |"


def _pair_lines(pairs: Sequence[Mapping[str, Any]], points: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """A row of differences for each pair; `points` writes one that is no tie."""

    def cell(entry: Mapping[str, Any] | None) -> str:
        if entry is None:
            return "–"
        return "tie" if entry["outcome"] == "tie" else points(entry)

    return [
        _line(f"`{pair['recipe']}` against `{pair['against']}`", [cell(pair["differences"].get(measure.key)) for measure in COLUMNS])
        for pair in pairs
    ]


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = value_of(row, key)
    difference = row["confidence"]["against_base"].get(key)
    if value is None:
        return "–"
    if row["recipe"] == BASE or difference is None:
        return percent(value)
    return f"{percent(value)} ({'tie' if difference['outcome'] == 'tie' else signed(difference['difference'])})"


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


def _same_as_run(found: Mapping[str, Any], metrics: Mapping[str, Any]) -> bool:
    """Whether seed 0, which has the settings of params.yaml, scored what the recorded run did."""
    first, rows = found["seeds"].index(0), {row["recipe"]: row for row in metrics["rows"] if row["recipe"] != CHAMPION}
    return {row["recipe"] for row in found["rows"]} == rows.keys() and all(
        entry is None or round(entry["values"][first] - (value_of(rows[row["recipe"]], key) or 0.0), 3) == 0
        for row in found["rows"]
        for key, entry in row["measures"].items()
    )


def with_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """`text` with each block between its markers replaced. UserError unless there is exactly one pair of each."""
    for name, content in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
            raise UserError(f"{README} needs one {begin} and after it one {end}: `make record` writes between them.")
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    checking = bool(arguments)
    try:
        if not checking:
            record()
        text = README.read_text(encoding="utf-8")
        wanted = from_record(text)
        if checking and wanted != text:
            raise UserError(f"the figures in {README} are not those of {artifacts.RECORD}. `make record` writes the last run's into both.")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wanted != text:
        with artifacts.replacing(README) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
    if not checking:
        print(f"{artifacts.RECORD} and {README}: the last run is recorded. Commit both.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
