"""The code location: light, complete, and open to asset selections as text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from dagster import AssetSelection, DagsterInstance

from assets.params import read_params
from orchestration.asset_checks import CHECKS
from orchestration.definitions import define
from orchestration.stage_assets import read_pipeline
from tests.settings import demo_settings

if TYPE_CHECKING:
    from tests.orchestration.conftest import Toy


@pytest.fixture(scope="module")
def defs():
    from orchestration.definitions import defs

    return defs


@pytest.fixture(scope="module")
def graph(defs):
    return defs.resolve_asset_graph()


def node(graph, name: str):
    return graph.get(next(key for key in graph.get_all_asset_keys() if key.to_user_string() == name))


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        ("evaluation/base", {"evaluation/base"}),
        ('key:"evaluation/mcip_rea"+', {"evaluation/mcip_rea", "promotion", "report", "search_table"}),
        ('group:"captions"', {"pseudo_captions", "training_captions/gpr", "training_captions/mcip"}),
        ('kind:"lancedb"', {"search_table"}),
        ('+key:"curated_images"', {"source_images", "curated_images"}),
    ],
)
def test_selections_as_text_work_beside_dvc(graph, selection, keys):
    # dvc's own choice of antlr would break each of these; pyproject.toml asks for a hydra that does not
    found = AssetSelection.from_string(selection).resolve(graph) & graph.materializable_asset_keys
    assert {key.to_user_string() for key in found} == keys


def test_an_asset_shows_what_dvc_yaml_says_of_it(graph):
    shown = node(graph, "text_tower/mcip_rea")
    assert shown.description == "Stage two, mcip_rea, the text tower realigned to the locked image tower of mcip."
    assert shown.group_name == "training"
    assert "pytorch" in shown.kinds
    assert shown.pools == {"compute"}


def test_sources_and_recipes_are_external_assets(graph, checkout: Path):
    stages = read_pipeline(checkout)
    external = {key.to_user_string() for key in graph.external_asset_keys}
    assert external == {"recipe/" + stage.address.replace("@", "/") for stage in stages} | {
        f"source/{read_params(checkout / 'params.yaml')[0].source_images.sources[0].root}",
        "source/data/benchmarks",
        "source/data/champion.json",
    }
    assert {key.to_user_string() for key in node(graph, "source_images").parent_keys} == {
        "recipe/source_images",
        "source/data/emoji",
    }


def test_every_check_is_on_a_stage_and_the_gate_is_on_promotion_and_lets_the_report_be_drawn(graph, checkout: Path):
    stages = [stage.address.partition("@")[0] for stage in read_pipeline(checkout)]
    assert {check.stage for check in CHECKS} <= set(stages)
    assert len(graph.asset_check_keys) == sum(stages.count(check.stage) for check in CHECKS)
    gate = graph.get_check_spec(next(key for key in graph.asset_check_keys if key.name == "promotion_gate"))
    assert not gate.blocking, "the page shows why; search_table itself refuses"
    assert gate.asset_key.to_user_string() == "promotion"


def test_jobs_select_what_they_say(defs, graph):
    def selected(job: str) -> set[str]:
        return {key.to_user_string() for key in defs.resolve_job_def(job).asset_layer.selected_asset_keys}

    everything = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert selected("full_pipeline") == everything
    assert selected("retrain") == everything - {"search_table", "export"}
    assert selected("publish") == {"search_table", "export"}
    recipes = read_params()[0].recipes.measured
    assert selected("evaluate_only") == {"champion", "promotion", "report", *(f"evaluation/{recipe}" for recipe in recipes)}


def test_a_new_row_adds_its_assets(checkout: Path, tmp_path: Path):
    for name in ("dvc.yaml", ".dvc/config", ".dvcignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((checkout / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    params = demo_settings()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    before = {key.to_user_string() for key in define(tmp_path).resolve_asset_graph().materializable_asset_keys}
    params["recipes"]["image_tower"]["wide"] = {"from": "base", "margin": 0.3, "about": "a wider margin"}
    params["recipes"]["text_tower"]["x"] = {"from": "wide", "about": "wide, realigned"}
    params["recipes"]["measured"] += ["wide", "x"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    graph = define(tmp_path).resolve_asset_graph()
    after = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert after - before == {"training_captions/wide", "image_tower/wide", "text_tower/x", "evaluation/wide", "evaluation/x"}
    assert "image_tower/wide" in {key.to_user_string() for key in node(graph, "text_tower/x").parent_keys}
    assert {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys} >= {
        ("image_tower/wide", "loss_falls"),
        ("text_tower/x", "loss_falls"),
        ("evaluation/x", "unit_norm"),
    }


def test_what_dvc_add_tracks_and_a_stage_that_says_nothing_of_itself_are_shown_too(toy: Toy):
    toy.git("rm", "--quiet", "--cached", "raw.txt")
    toy.dvc("add", "raw.txt")  # `words` reads it
    toy.replace("dvc.yaml", "    outs: [data/both.txt]\n    meta: {group: serving, kinds: [text]}\n", "    outs: [data/both.txt]\n")
    with DagsterInstance.ephemeral() as instance:
        assert toy.tick(instance) == ["words", "copy@a", "copy@b", "both"]
        assert toy.stale_in_dagster(instance) == toy.stale_in_dvc() == set()
    defs = define(toy.folder)
    graph = defs.resolve_asset_graph()
    assert node(graph, "both").group_name == "other"
    assert {key.to_user_string() for key in node(graph, "words").parent_keys} == {"recipe/words", "source/raw.txt"}
    retrained = defs.resolve_job_def("retrain").asset_layer.selected_asset_keys
    assert {key.to_user_string() for key in retrained} == {"words", "copy/a", "copy/b", "both"}


def test_the_schedule_is_the_one_of_params(defs):
    settings = read_params()[0].orchestration
    schedule = defs.resolve_schedule_def("weekly_retrain")
    assert (schedule.cron_schedule, schedule.execution_timezone) == (settings.retrain_cron, settings.time_zone)


def test_loading_imports_nothing_heavy(checkout: Path):
    script = (
        "import sys; import orchestration.definitions; "
        "print(*sorted({'torch', 'lancedb', 'great_expectations', 'matplotlib', 'open_clip'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_line_validates(checkout: Path, tmp_path: Path):
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "orchestration.definitions"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
