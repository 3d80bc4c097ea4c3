"""Three weekly drops through Dagster: each is looked at, trained on, compared with the champion and published; the last is taken back.

Of the pipeline's stages those that a single measured recipe needs, in the test's own process as far as Dagster is concerned. `make test`
leaves the second week out; `DROPS=3 python -m pytest tests/orchestration/test_weekly_drops.py` has all three.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetCheckEvaluation, AssetCheckKey, AssetSelection, DagsterInstance, materialize

from assets.params import read_params
from assets.recipes import CHAMPION
from assets.search_table import search
from orchestration.asset_checks import CHECKS, checks_of, report_failed_expectations
from orchestration.record import asset_key
from orchestration.rollback import rollback_job
from orchestration.stage_assets import outside_assets, read_pipeline, stage_asset
from tests.orchestration.workspace import Workspace
from tests.tiny_project import CLASSES, Project, copy_project, draw

READ = ("source_images", "curated_images")
JUDGED = ("evaluation@base", "champion", "promotion")
WEEKS: tuple[tuple[str, ...], ...] = (
    (*READ, *JUDGED, "search_table"),
    (*READ, *JUDGED),
    (*READ, "base_clip", *JUDGED, "search_table"),
)  # the last one retrains
if os.environ.get("DROPS") != "3":
    WEEKS = (WEEKS[0], WEEKS[-1])
LOOKED = {"drop", "vectors_are_the_model_s"}  # the checks that are made
PER_CLASS = 2  # new pictures of each class in a week


@pytest.fixture(scope="module")
def library(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The tiny project with its base alone measured and published."""
    folder = tmp_path_factory.mktemp("weeks") / "a library"
    copy_project(project.folder, folder)
    made = Workspace(folder, tmp_path_factory.mktemp("site"))
    made.change("recipes", measured=["base"])
    made.change("promotion", recipe="base", pairs=[])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        yield made


def run(library: Workspace, instance: DagsterInstance, *addresses: str) -> bool:
    """Materialize stages, with the checks that matter here; whether all succeeded. What is shown of them other tests look at."""
    folder, settings = library.folder, read_params(library.folder / "params.yaml")[0].orchestration
    stages = read_pipeline(folder)
    told = partial(report_failed_expectations, folder)
    assets = [stage_asset(stage, folder, lambda address: {}, lambda address: [], on_failure=told) for stage in stages]
    wanted = [asset_key(address) for address in addresses]
    checks = [each for each in checks_of(stages, folder, settings) if {key.name for key in each.check_keys} <= LOOKED]
    chosen = AssetSelection.assets(*wanted)
    return materialize([*outside_assets(stages), *assets, *checks], selection=chosen, instance=instance, raise_on_error=False).success


def latest(instance: DagsterInstance, address: str, check: str) -> AssetCheckEvaluation:
    key = AssetCheckKey(asset_key(address), check)
    evaluation = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key].evaluation
    assert evaluation is not None
    return evaluation


def drop(library: Workspace, week: int) -> int:
    """New pictures in the folder; how many."""
    chance = random.Random(week)
    for label in CLASSES:
        for number in range(PER_CLASS):
            draw(label, 50 + 4 * number, chance).save(library.folder / "data/images" / label / f"week{week}_{number}.png")
    return PER_CLASS * len(CLASSES)


def answers() -> list[pa.Table]:
    return [search("a red circle", k=6), search(Path("data/images/holiday.jpg"), k=6)]


def test_three_drops_and_a_step_back(library: Workspace):
    with library.instance() as instance:
        assert run(library, instance, "promotion")
        library.run("python", "-m", "assets.commands.promote")
        crowned = library.json("data/champion.json")["model_sha256"]
        tested, candidates, found, unseen = [], [], [], 0
        for week, stages in enumerate(WEEKS, 1):
            unseen += drop(library, week)
            assert run(library, instance, *stages)
            assert library.json("data/curated_images/drop.json")["new"] == unseen, "since the last publish"
            metrics = library.json("data/promotion/metrics.json")
            rows = {row["recipe"]: row for row in metrics["rows"]}
            assert list(rows) == ["base", CHAMPION] and metrics["pairs"][-1]["against"] == CHAMPION
            asked = [pq.read_table(library.folder / f"data/evaluation/{each}/per_query.parquet")["id"].to_pylist() for each in rows]
            assert asked[0] == asked[1], "champion and candidate are asked the same"
            candidate, champion = (library.json(f"data/evaluation/{each}/made_with.json")["model_sha256"] for each in rows)
            assert champion == crowned
            assert rows[CHAMPION]["champion"] == {"recipe": "base", "classes": len({each.split("/")[0] for each in asked[0]}), "seen": []}
            tested.append(set(asked[0]))
            candidates.append(candidate)
            if "search_table" in stages:
                unseen = 0
                found.append(answers())
        assert all(before < after for before, after in pairwise(tested)), "the test split grows and loses nothing"
        assert set(candidates[:-1]) == {crowned} and candidates[-1] != crowned
        assert latest(instance, "search_table", "vectors_are_the_model_s").passed
        assert rollback_job(library.folder).execute_in_process(instance=instance).success
    back = answers()
    assert back == found[0] != found[1]
    (look,) = [check.look for check in CHECKS if check.name == "vectors_are_the_model_s"]
    outcome = look(library.folder, "", read_params(library.folder / "params.yaml")[0].orchestration)
    assert outcome.passed, f"{outcome.said}: judged by the model in models/base, which is that of the third week"


def test_a_drop_that_is_surely_broken_is_held_back_and_dagster_says_why(library: Workspace):
    chance = random.Random(0)
    for number in range(24):
        dark = draw("red_circle", 50 + number, chance).point(lambda level: level // 12)
        dark.save(library.folder / f"data/images/red_circle/dark{number}.png")
    with library.instance() as instance:
        assert not run(library, instance, *READ)
        evaluation = latest(instance, "curated_images", "drop")
    assert not evaluation.passed
    assert "brightness" in str(evaluation.description) and "(block)" in str(evaluation.description)
