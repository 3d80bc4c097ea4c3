"""Stage champion: the kept model of the champion, and what it scores on today's test split. Without a champion there is nothing of it.

`make promote` chooses the model and puts it into data/champion; this stage makes it an output, so that dvc.lock names it, `dvc push` and
`dvc pull` carry it, and git stays small. Comparing it with the candidates is promotion's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from assets import artifacts
from assets.champion.seen import TRAINED_ON_SCHEMA, seen_families
from assets.engine import HERE, Engine
from assets.errors import UserError
from assets.params import Evaluation as Settings
from assets.recipes import CHAMPION

if TYPE_CHECKING:
    from assets.evaluations import TestSplit

logger = logging.getLogger(__name__)


def measure_champion(settings: Settings, engine: Engine = HERE) -> None:
    """Write data/evaluation/champion as evaluation@RECIPE does, without benchmarks, and seen.json: the families of test classes that the
    champion was trained on. UserError where data/champion does not hold the model that data/champion.json names.
    """
    told = artifacts.read_json(artifacts.CHAMPION)
    folder = artifacts.evaluation_dir(CHAMPION)
    if told["recipe"] is None:
        # dvc loses files beside an empty output folder when it checks out (seen with 3.67): each has one file at least
        with artifacts.replacing(artifacts.CHAMPION_KEPT) as kept, artifacts.replacing(folder) as nothing:
            kept.mkdir()
            pq.write_table(TRAINED_ON_SCHEMA.empty_table(), kept / artifacts.TRAINED_ON.name)
            artifacts.write_json(nothing / artifacts.SEEN, {"families": []})
        logger.info("there is no champion yet: `make promote` makes one of the published recipe")
        return
    _check_kept(told)
    from assets.evaluation.measuring import measure, open_encoder, read_split, summary  # torch is loaded where there is a champion
    from assets.evaluations import write_evaluation

    test = read_split()
    seen = seen_families(test)
    _say(seen, test)
    evaluation = measure(CHAMPION, open_encoder(artifacts.CHAMPION_MODEL, settings, engine), test, settings)
    write_evaluation(evaluation, None)
    artifacts.write_json(folder / artifacts.SEEN, {"families": seen})
    logger.info("the champion, %s: %s percent", told["recipe"], summary(evaluation.metrics))


def _check_kept(told: dict[str, Any]) -> None:
    found = artifacts.sha256_of(artifacts.CHAMPION_MODEL) if artifacts.CHAMPION_MODEL.is_dir() else None
    if found == told["model_sha256"] and artifacts.TRAINED_ON.is_file():
        return
    there = "no model" if found is None else f"a model with sha256 {found[:16]}…"
    raise UserError(
        f"{artifacts.CHAMPION} names the model {told['recipe']} with sha256 {told['model_sha256'][:16]}…, and"
        f" {artifacts.CHAMPION_KEPT} holds {there}. `dvc checkout champion` brings back the recorded one (in a clone, `dvc pull"
        f" champion`), `make promote` makes the published recipe the champion, and `git checkout {artifacts.CHAMPION}` takes back a change"
        " of the file."
    )


def _say(seen: list[str], test: TestSplit) -> None:
    if seen:
        left_out = sum(family in set(seen) for family in test.families)
        logger.warning(
            "the champion was trained on %d of the %d test classes, since curated_images' seed or fractions, or the classes' families, have"
            " changed: promotion leaves them out of the comparison with it",
            left_out,
            len(test.classes),
        )
