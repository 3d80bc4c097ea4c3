"""The stages table, dvc.yaml, params.yaml and the Dagster graph tell of the same pipeline."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from assets.params import Params, read_params
from assets.stages import STAGES, Stage, address
from orchestration.stage_assets import UNREACHABLE

ROWS = {address(stage, recipe): (stage, recipe) for stage in STAGES for recipe in stage.recipes}


@pytest.fixture(scope="module")
def params(checkout: Path) -> Params:
    return read_params(checkout / "params.yaml")[0]


@pytest.fixture(scope="module")
def dvc_stages(checkout: Path) -> Iterator[dict[str, SimpleNamespace]]:
    """dvc.yaml as dvc itself resolves it: matrix unrolled, values filled in."""
    with Repo(str(checkout)) as repo:
        yield {
            stage.name: SimpleNamespace(
                command=stage.cmd,
                description=stage.desc,
                meta=stage.meta,
                params=[name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params],
                dependencies=[dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)],
                outputs=[out.def_path for out in stage.outs],
                outs=stage.outs,
            )
            for stage in repo.index.stages
        }


def paths(found: list[Path]) -> list[str]:
    return sorted(path.as_posix() for path in found)


def test_dvc_has_the_table_s_stages_in_its_order(dvc_stages):
    assert list(dvc_stages) == list(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_dvc_stage_is_its_row_of_the_table(name, dvc_stages, params):
    (stage, recipe), of_dvc = ROWS[name], dvc_stages[name]
    assert of_dvc.command == f"python -m assets {name}"
    assert sorted(of_dvc.params) == sorted(stage.params)
    assert sorted(of_dvc.dependencies) == sorted([*stage.code, *paths(stage.inputs(recipe, params))])
    assert sorted(of_dvc.outputs) == paths(stage.outputs(recipe))


@pytest.mark.parametrize("name", ROWS)
def test_a_dvc_stage_tells_dagster_what_to_show(name, dvc_stages):
    of_dvc = dvc_stages[name]
    assert of_dvc.description.endswith("."), "desc is a full sentence"
    assert of_dvc.meta.keys() <= {"group", "kinds", "pool", "owners"}
    assert of_dvc.meta["group"] in {"data", "captions", "training", "evaluation", "serving"}
    assert 1 <= len(of_dvc.meta["kinds"]) <= 3, "Dagster shows up to three kinds"


def test_what_dvc_caches_git_ignores_and_what_it_does_not_git_keeps(dvc_stages, checkout):
    # Else dvc would write .gitignore files of its own, and `git status` would not be clean after `dvc repro`.
    outs = {out.def_path: out.use_cache for stage in dvc_stages.values() for out in stage.outs}
    asked = subprocess.run(["git", "check-ignore", "--no-index", *outs], cwd=checkout, capture_output=True, text=True, check=False)
    ignored = set(asked.stdout.splitlines())
    in_git = {path for path, cached in outs.items() if not cached} - {"data/lancedb"}
    assert in_git == {"data/report/metrics.json", "data/report/plots"}
    assert ignored == outs.keys() - in_git


def test_the_table_stays_where_it_is(dvc_stages):
    (lancedb,) = [out for out in dvc_stages["search_table"].outs if out.def_path == "data/lancedb"]
    assert (lancedb.use_cache, lancedb.persist) == (False, True)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_one_noun_names_section_package_and_tests(stage: Stage, checkout: Path):
    assert stage.name in Params.model_fields
    assert stage.name in stage.params
    assert stage.code[0] == f"assets/{stage.name}"
    assert (checkout / "assets" / stage.name / "stage.py").is_file()
    assert list((checkout / "tests" / stage.name).glob("test_*.py"))


@pytest.mark.parametrize("words", UNREACHABLE)
def test_dagster_knows_a_failed_download_by_words_that_a_stage_says(words: str, checkout: Path):
    said = [path for path in (checkout / "assets").rglob("*.py") if words in path.read_text(encoding="utf-8")]
    assert {path.parent.name for path in said} <= {"source_images", "base_clip"}, "only what downloads may be tried again"
    assert said


def test_dagster_shows_the_same_graph(params):
    from orchestration.definitions import defs

    made_by = {out: name for name, (stage, recipe) in ROWS.items() for out in stage.outputs(recipe)}

    def upstream(stage: Stage, recipe: str) -> set[str]:
        return {
            maker
            for needed in stage.inputs(recipe, params)
            for out, maker in made_by.items()
            if out.is_relative_to(needed) or needed.is_relative_to(out)
        }

    of_table = {name.replace("@", "/"): {each.replace("@", "/") for each in upstream(*row)} for name, row in ROWS.items()}
    graph = defs.resolve_asset_graph()
    of_dagster = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys & graph.materializable_asset_keys}
        for key in graph.materializable_asset_keys
    }
    assert of_dagster == of_table
