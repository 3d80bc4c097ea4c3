"""python -m assets.commands.promote: make the published recipe the champion that later ones are compared with (data/champion.json).

Its model is kept in data/champion with a list of what it was trained on; the stage champion measures it from then on. The version of the
table that it made gets the tag `champion`, which no cleaning removes. What may be published is decided by promotion's verdict, not here.
"""

from __future__ import annotations

import shutil
import sys
from typing import Any

import pyarrow.parquet as pq

from assets import artifacts
from assets.champion.seen import trained_on
from assets.errors import UserError
from assets.evaluations import read_test_split
from assets.measures import percent
from assets.promotion.champion import split_digest
from assets.search_table.table import TABLE


def promote() -> dict[str, Any]:
    """Write data/champion and champion.json from promotion's files and return the latter. UserError where the verdict is hold, or is of
    another model or other pictures than are there.
    """
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
    folder, model = artifacts.evaluation_dir(recipe), artifacts.model_dir(recipe)
    evaluated, made_with = (folder / name for name in ("metrics.json", "made_with.json"))
    if missing := [path.as_posix() for path in (evaluated, made_with, model, artifacts.CURATED_IMAGES) if not path.exists()]:
        raise UserError(f"no {', '.join(missing)}. `dvc checkout` restores it, `dvc repro promotion` makes it.")
    if not _is_of(row, artifacts.read_json(evaluated)):
        raise UserError(
            f"{artifacts.METRICS} is not of the {recipe} that {evaluated} measured. `dvc repro promotion` brings it up to date."
        )
    made = artifacts.read_json(made_with)
    model_sha256 = artifacts.sha256_of(model)
    if {verdict["model_sha256"], made["model_sha256"]} != {model_sha256}:
        raise UserError(f"{model} is not the model that {artifacts.VERDICT} judges. `dvc repro promotion` judges the one that is there.")
    if verdict["test_sha256"] != split_digest(read_test_split().rows):
        raise UserError(
            f"{artifacts.CURATED_IMAGES} has other test pictures than {artifacts.VERDICT} was decided on. `dvc repro promotion` brings it"
            " up to date."
        )
    with artifacts.replacing(artifacts.CHAMPION_KEPT) as kept:
        shutil.copytree(model, kept / artifacts.CHAMPION_MODEL.name)
        pq.write_table(trained_on(), kept / artifacts.TRAINED_ON.name, compression="zstd")
    champion = {"recipe": recipe, "model_sha256": model_sha256, "override_reason": verdict["override_reason"]}
    champion |= {"settings": made["settings"], "metrics": row}
    artifacts.write_json(artifacts.CHAMPION, champion)
    return champion


def _tag(model_sha256: str) -> str:
    """Tag the champion's version of the table, and say which it is. lance is imported only where there is a table."""
    if TABLE.is_dir():
        from assets.search_table.versions import CHAMPION, tag_champion

        if version := tag_champion(model_sha256):
            return f"{artifacts.LANCEDB}: version {version.number} ({version.publish}) has the tag {CHAMPION}."
    return f"{artifacts.LANCEDB} has no version made by this model. After `dvc repro search_table`, `make promote` tags it."


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
    print(
        f"Its model is kept in {artifacts.CHAMPION_KEPT}. `dvc repro champion`, which `make promote` runs next, makes dvc.lock name it:"
        " commit both files; `dvc push` carries the model. Later recipes are compared with it on the test pictures of their day; with"
        " promotion.against: champion they must not fall below it."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
