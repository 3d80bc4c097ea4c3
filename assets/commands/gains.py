"""python -m assets.commands.gains NAME: write into data/record/gains.json what the published recipe gains over base on these pictures.

NAME is what README calls them. Where `make profile NAME=sweep` added its rows, the best of them is written too: it is chosen by the
test classes, so it shows how much the defaults leave, and it must choose no setting. `make record` puts the file into README.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from assets import artifacts
from assets.errors import UserError
from assets.measures import AVERAGE, percent, signed, value_of
from assets.params import Params, read_params
from assets.pictures.table import read_rows
from assets.profiles.overlay import profiles
from assets.recipes import BASE

GAINS = artifacts.RECORD / "gains.json"


def gains(name: str) -> dict[str, Any]:
    """Write this collection's entry and return it; it is of seeds.json where there is one, else of the last run."""
    if not name.strip():
        raise UserError("given no name of these pictures: make gains NAME=photographs")
    if not artifacts.METRICS.exists():
        raise UserError(f"no {artifacts.METRICS}. `make demo` makes it.")
    params, _ = read_params()
    entry = {**_counts(), **(_of_seeds if artifacts.SEEDS.exists() else _of_run)(params)}
    known = artifacts.read_json(GAINS) if GAINS.exists() else {}
    artifacts.write_json(GAINS, dict(sorted((known | {name.strip(): entry}).items())))
    return entry


def _counts() -> dict[str, int]:
    rows = read_rows(artifacts.CURATED_IMAGES, columns=["split", "label"])
    classes = Counter(split for split, _ in set(zip(rows["split"].to_pylist(), rows["label"].to_pylist(), strict=True)))
    return {"pictures": len(rows), "training_classes": classes["train"], "test_classes": classes["test"]}


def _of_run(params: Params) -> dict[str, Any]:
    rows = {row["recipe"]: row for row in artifacts.read_json(artifacts.METRICS)["rows"]}
    gained = {name: row["confidence"]["against_base"][AVERAGE.key] for name, row in rows.items() if name != BASE}
    return _entry(
        1,
        value_of(rows[BASE], AVERAGE.key),
        {name: {"points": each["difference"], "interval": each["interval"], "outcome": each["outcome"]} for name, each in gained.items()},
        params,
    )


def _of_seeds(params: Params) -> dict[str, Any]:
    found = artifacts.read_json(artifacts.SEEDS)
    measured = {row["recipe"]: row["measures"][AVERAGE.key] for row in found["rows"]}
    gained = {name: each["against_base"] for name, each in measured.items() if name != BASE and each is not None}
    return _entry(
        len(found["seeds"]),
        measured[BASE] and measured[BASE]["mean"],
        {name: {"points": each["mean"], "interval": each["interval"], "outcome": each["outcome"]} for name, each in gained.items()},
        params,
    )


def _entry(seeds: int, base: float | None, gained: Mapping[str, Mapping[str, Any]], params: Params) -> dict[str, Any]:
    recipe = params.promotion.recipe
    if base is None or recipe not in gained:
        raise UserError(f"the last run has no average of {BASE} or of {recipe} (promotion.recipe). `dvc repro report` measures them.")
    swept = {name: {"about": params.recipe[name].about, **gained[name]} for name in _points() if name in gained and name in params.recipe}
    best = max(swept, key=lambda name: swept[name]["points"], default=None)
    return {"seeds": seeds, "base": base, "recipe": recipe, "gain": gained[recipe], "sweep": swept, "best": best}


def _points() -> list[str]:
    """The measured rows of assets/profiles/sweep.yaml."""
    return list(artifacts.read_yaml(profiles()["sweep"])["recipes"]["measured+"])


def gains_table(found: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: one row for each collection."""
    return [
        "| pictures | how many | training classes | test classes | seeds | average of `base` | gain by default | best of the sweep |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {name} | {each['pictures']:,} | {each['training_classes']:,} | {each['test_classes']:,} | {each['seeds']}"
            f" | {percent(each['base'])} | {_gain(each['gain'])} | {_best(each)} |"
            for name, each in found.items()
        ),
    ]


def _gain(gain: Mapping[str, Any]) -> str:
    low, high = (signed(end) for end in gain["interval"])
    tie = ", a tie" if gain["outcome"] == "tie" else ""
    return f"{signed(gain['points'])} [{low}, {high}]{tie}"


def _best(entry: Mapping[str, Any]) -> str:
    if entry["best"] is None:
        return "–"
    best = entry["sweep"][entry["best"]]
    return f"{signed(best['points'])} ({best['about'].removesuffix(', realigned')})"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        entry = gains(arguments[0])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(gains_table({arguments[0].strip(): entry})))
    print(f"{GAINS} has it. `make record` puts the file into README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
