"""python -m assets.commands.promote: make the published recipe the champion that later ones are compared with (data/champion.json).

The version of the table that its model made gets the tag `champion`, which no cleaning removes. What may be published is decided by
promotion's verdict, not here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pyarrow.parquet as pq

from assets import artifacts
from assets.errors import UserError
from assets.measures import percent
from assets.promotion.champion import class_means
from assets.search_table.table import TABLE


def promote() -> dict[str, Any]:
    """Write champion.json from promotion's files and return it. UserError where the verdict is hold, or judges another model."""
    for needed in (artifacts.METRICS, artifacts.VERDICT):
        if not needed.exists():
            raise UserError(f"no {needed}. `dvc repro promotion` makes it.")
    verdict = artifacts.read_json(artifacts.VERDICT)
    recipe = verdict["recipe"]
    if verdict["decision"] != "publish":
        raise UserError(
            f"{recipe} is held back, so {artifacts.CHAMPION} stays as it is:\n  "
            + "\n  ".join(verdict["reasons"])
            + "\nTrain a better one, or set promotion.override_reason in params.yaml and run `dvc repro promotion`."
        )
    row = next(row for row in artifacts.read_json(artifacts.METRICS)["rows"] if row["recipe"] == recipe)
    folder = artifacts.evaluation_dir(recipe)
    evaluated, made_with, per_query, per_class = (
        folder / name for name in ("metrics.json", "made_with.json", "per_query.parquet", "per_class.parquet")
    )
    if missing := [path.as_posix() for path in (evaluated, made_with, per_query, per_class) if not path.exists()]:
        raise UserError(f"no {', '.join(missing)}. `dvc checkout` restores it, `dvc repro promotion` makes it.")
    if not _is_of(row, artifacts.read_json(evaluated)):
        raise UserError(
            f"{artifacts.METRICS} is not of the {recipe} that {evaluated} measured. `dvc repro promotion` brings it up to date."
        )
    made = artifacts.read_json(made_with)
    model_sha256 = made["model_sha256"]
    if verdict["model_sha256"] != model_sha256:
        raise UserError(
            f"{folder} is not of the model that {artifacts.VERDICT} judges. `dvc repro promotion` judges the one that is there."
        )
    paired = class_means(pq.read_table(per_query), pq.read_table(per_class), verdict["test_sha256"])
    champion = {"recipe": recipe, "model_sha256": model_sha256, "override_reason": verdict["override_reason"]}
    champion |= {"settings": made["settings"], "metrics": row, "paired": paired}
    with artifacts.replacing(artifacts.CHAMPION) as temporary:
        temporary.write_text(_as_text(champion), encoding="utf-8")
    return champion


def _tag(model_sha256: str) -> str:
    """Tag the champion's version of the table, and say which it is. lance is imported only where there is a table."""
    if TABLE.is_dir():
        from assets.search_table.versions import CHAMPION, tag_champion

        if version := tag_champion(model_sha256):
            return f"{artifacts.LANCEDB}: version {version.number} ({version.publish}) has the tag {CHAMPION}."
    return f"{artifacts.LANCEDB} has no version made by this model. After `dvc repro search_table`, `make promote` tags it."


def _as_text(champion: dict[str, Any]) -> str:
    """JSON with one line per class, so that people can read it and its changes."""
    lines = [f"{json.dumps(label, ensure_ascii=False)}: {json.dumps(row)}" for label, row in champion["paired"]["classes"].items()]
    whole = json.dumps(champion | {"paired": champion["paired"] | {"classes": {}}}, indent=2, ensure_ascii=False, allow_nan=False)
    before, key, after = whole.rpartition('"classes": {')  # a quotation mark within a value is escaped: nothing else reads so
    classes = ",\n      ".join(lines)
    return f"{before}{key}\n      {classes}\n    {after}\n"


def _is_of(row: dict[str, Any], evaluated: dict[str, Any]) -> bool:
    """Whether the row is the evaluation's, but for the differences to base, on all classes and on those without siblings."""
    own = {name: {key: value for key, value in row[name].items() if key != "against_base"} for name in ("confidence", "without_siblings")}
    return row | own == {key: value for key, value in evaluated.items() if key != "counts"}


def main() -> int:
    try:
        champion = promote()
        tagged = _tag(champion["model_sha256"])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    average, digest = percent(champion["metrics"]["average"]), champion["model_sha256"][:16]
    print(f"{artifacts.CHAMPION}: the champion is {champion['recipe']}, average {average}, model sha256 {digest}…")
    print(tagged)
    print("Commit the file. With promotion.against: champion, later recipes are compared with it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
