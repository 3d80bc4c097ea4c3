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
from assets.search_table.versions import STATE
from assets.stages import STAGES, Stage, addresses

CODE = "assets/"
WITHOUT_SECTION = {"training_captions", "champion"}  # what they read are a row of recipes, and the section evaluation


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


def paths_as_given(found: list[Path]) -> list[str]:
    return [path.as_posix() for path in found]


def test_dvc_has_the_table_s_stages_in_its_order(dvc_stages, params):
    assert list(dvc_stages) == list(addresses(params))


def test_a_dvc_stage_is_its_row_of_the_table(dvc_stages, params):
    for name, (stage, recipe) in addresses(params).items():
        of_dvc = dvc_stages[name]
        assert of_dvc.command == f"python -m assets {name}"
        assert sorted(of_dvc.params) == sorted(stage.settings(params, recipe)), name
        assert [path for path in of_dvc.dependencies if not path.startswith(CODE)] == paths_as_given(stage.inputs(params, recipe)), name
        assert sorted(of_dvc.outputs) == sorted(paths_as_given(stage.outputs(params, recipe))), name


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_dvc_stage_has_what_dagster_shows(stage, dvc_stages):
    of_dvc = next(each for name, each in dvc_stages.items() if name.partition("@")[0] == stage.name)
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
    assert not in_git, "a run changes dvc.lock and ignored files, nothing else"
    assert ignored == outs.keys() - in_git


def test_the_table_stays_where_it_is(dvc_stages):
    (lancedb,) = [out for out in dvc_stages["search_table"].outs if out.def_path == "data/lancedb"]
    assert (lancedb.use_cache, lancedb.persist) == (False, True)


def test_dvc_knows_the_table_by_what_it_holds(dvc_stages, checkout, tmp_path):
    """Equal tables have other files: going back to an old revision wrote another hash into its dvc.lock, and dvc read every gigabyte."""
    for name in (".dvcignore", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((checkout / name).read_bytes())
    for path in ("images.lance/data/1.lance", "models/base@0/open_clip_config.json", ".lock", "published.json"):
        (tmp_path / "data/lancedb" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/lancedb" / path).touch()
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with Repo(str(tmp_path)) as repo:
        seen = [Path(folder) / name for folder, _, names in repo.dvcignore.walk(repo.fs, str(tmp_path / "data/lancedb")) for name in names]
    assert seen == [tmp_path / STATE]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_one_noun_names_section_package_and_tests(stage: Stage, params: Params, checkout: Path):
    if stage.name not in WITHOUT_SECTION:
        assert stage.name in Params.model_fields
        assert stage.name in stage.settings(params, stage.recipes(params)[0])
    assert (checkout / "assets" / stage.name / "stage.py").is_file()
    assert list((checkout / "tests" / stage.name).glob("test_*.py"))


def test_nothing_reads_a_later_stage_s_section(params: Params):
    order = [stage.name for stage in STAGES]
    for number, stage in enumerate(STAGES):
        if stage.name == "training_captions":  # it prepares what the row of image_tower asks for
            continue
        read = {name.partition(".")[0] for name in stage.settings(params, stage.recipes(params)[0])}
        assert not read & set(order[number + 1 :])


def test_dagster_shows_the_same_graph(params):
    from orchestration.definitions import defs

    rows = addresses(params)
    made_by = {out: name for name, (stage, recipe) in rows.items() for out in stage.outputs(params, recipe)}

    def upstream(stage: Stage, recipe: str) -> set[str]:
        return {
            maker
            for needed in stage.inputs(params, recipe)
            for out, maker in made_by.items()
            if out.is_relative_to(needed) or needed.is_relative_to(out)
        }

    of_table = {name.replace("@", "/"): {each.replace("@", "/") for each in upstream(*row)} for name, row in rows.items()}
    graph = defs.resolve_asset_graph()
    of_dagster = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys & graph.materializable_asset_keys}
        for key in graph.materializable_asset_keys
    }
    assert of_dagster == of_table
