"""Several seeds: what is aggregated, how a copy of the checkout is made for each, and that finished work is kept and failures are told.

The runs are of a small pipeline with stand-ins for the stages; tests/test_pulse.py has a real one in a copy.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from assets import artifacts
from assets.artifacts import RECIPES
from assets.errors import UserError
from assets.params import read_params
from assets.report import seeds
from assets.report.measures import MEASURES
from assets.stages import STAGES


def row(recipe: str, value: float, caption: float | None = None) -> dict:
    values = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
    return {"recipe": recipe, **values, "text_to_image": {"recall_at_5": value, "caption_recall_at_5": caption}, "average": value}


def every(value: dict[str, float], caption: float | None = None) -> dict[str, dict]:
    return {recipe: row(recipe, value.get(recipe, 0.0), caption) for recipe in RECIPES}


def test_a_t_interval_by_hand():
    # 1 2 3: mean 2, sd 1, t(0.975, 2) = 4.302653, half = 4.302653 / √3
    assert seeds.t_interval([1, 2, 3], 0.95) == pytest.approx((2, 1, 2 - 2.484138, 2 + 2.484138), abs=1e-5)
    # t(0.95, 3) = 2.353363; 2 4 4 6: mean 4, sd √(8/3)
    half = 2.353363 * (8 / 3) ** 0.5 / 2
    assert seeds.t_interval([2, 4, 4, 6], 0.9) == pytest.approx((4, (8 / 3) ** 0.5, 4 - half, 4 + half), abs=1e-5)
    with pytest.raises(ValueError, match="at least two"):
        seeds.t_interval([1], 0.95)


def test_the_aggregate_by_hand():
    rows = {
        0: every({"base": 10, "gpr": 20, "gpr_rea": 11, "mcip": 9, "mcip_rea": 8}),
        1: every({"base": 12, "gpr": 23, "gpr_rea": 12.1, "mcip": 13, "mcip_rea": 9.5}),
        2: every({"base": 14, "gpr": 24, "gpr_rea": 19, "mcip": 13, "mcip_rea": 11.5}),
    }
    found = seeds.aggregate(rows, 3, 0.95)
    assert (found["seeds"], found["missing"], found["level"]) == ([0, 1, 2], [], 0.95)
    by_recipe = {each["recipe"]: each["measures"] for each in found["rows"]}
    assert list(by_recipe) == list(RECIPES)
    base = by_recipe["base"]["knn.accuracy"]
    assert base == {"values": [10, 12, 14], "mean": 12, "sd": 2, "interval": [7.0317, 16.9683]}  # ∓ 2 · 2.484138
    gpr = by_recipe["gpr"]["average"]["against_base"]  # 10 11 10: mean 31/3, sd √(1/3)
    assert (gpr["mean"], gpr["sd"], gpr["holds"], gpr["outcome"]) == (10.3333, 0.5774, True, "better")
    assert gpr["interval"] == [8.8991, 11.7676]
    gpr_rea = by_recipe["gpr_rea"]["average"]["against_base"]  # 1 0.1 5: above in every seed, but far apart
    assert (gpr_rea["holds"], gpr_rea["outcome"]) == (True, "tie")
    mcip = by_recipe["mcip"]["average"]["against_base"]  # −1 1 −1
    assert (mcip["holds"], mcip["outcome"]) == (False, "tie")
    assert by_recipe["mcip_rea"]["average"]["against_base"]["outcome"] == "worse"  # −2 −2.5 −2.5
    assert by_recipe["base"]["text_to_image.caption_recall_at_5"] is None


def test_a_partial_aggregate_says_which_seeds_are_missing_and_a_measure_needs_every_seed():
    rows = {0: every({"base": 1}, caption=5), 2: every({"base": 2})}
    found = seeds.aggregate(rows, 3, 0.95)
    assert (found["seeds"], found["missing"]) == ([0, 2], [1])
    assert found["rows"][0]["measures"]["text_to_image.caption_recall_at_5"] is None
    assert set(found["rows"][0]["measures"]) == {measure.key for measure in MEASURES}


def test_no_difference_at_all_is_a_tie():
    found = seeds.aggregate({0: every({}), 1: every({})}, 2, 0.95)
    against = found["rows"][1]["measures"]["knn.accuracy"]["against_base"]
    assert (against["holds"], against["outcome"], against["interval"]) == (False, "tie", [0, 0])


def test_what_is_repeated_is_every_stage_between_the_source_and_the_report():
    assert tuple(stage.name for stage in STAGES if stage.name not in (seeds.READ_ONCE, "report", "search_table")) == seeds.REPEATED


def test_seed_0_is_params_yaml_and_others_are_added(checkout):
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    written["image_tower"]["seed"] = 7
    assert seeds.offset(written, 0) == written
    moved = seeds.offset(written, 2)
    assert moved["image_tower"]["seed"] == 9
    changed = {name for name in written if moved[name] != written[name]}
    assert changed == {name for name in seeds.REPEATED if "seed" in written[name]}
    assert "report" not in changed


STAND_IN = """
import json, os, pathlib, sys, yaml
stage = sys.argv[1]
seed = yaml.safe_load(pathlib.Path("params.yaml").read_text())[stage].get("seed")
if stage == "evaluation":
    import assets.evaluation
    assert seed != 1 or not pathlib.Path(os.environ["SEED_1_FAILS"]).exists(), "seed 1 is not liked"
    for number, recipe in enumerate(("base", "gpr", "gpr_rea", "mcip", "mcip_rea")):
        value = 10.0 * seed + number
        row = {"image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value}, "zero_shot": {"accuracy": value}}
        row |= {"text_to_image": {"recall_at_5": value, "caption_recall_at_5": None}, "average": value}
        folder = pathlib.Path("data/evaluation") / recipe
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(row))
else:
    pathlib.Path(f"data/{stage}").mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"data/{stage}/images.parquet").write_text(str(seed))
if stage == "curated_images":  # somebody edits the checkout meanwhile
    pathlib.Path("../../../assets/evaluation/__init__.py").write_text("raise RuntimeError('half written')")
"""
SOURCE, CURATED = "data/source_images/images.parquet", "data/curated_images/images.parquet"
EVALUATED = [f"data/evaluation/{recipe}/metrics.json" for recipe in RECIPES]
PIPELINE = {
    "source_images": {"deps": ["assets/source_images", "${source_images.image_folder.root}"], "outs": [SOURCE]},
    "curated_images": {"deps": ["assets/curated_images", SOURCE], "outs": [CURATED]},
    "evaluation": {"deps": ["assets/evaluation", CURATED], "metrics": EVALUATED},
    "report": {"deps": ["assets/report", *EVALUATED]},
}


@pytest.fixture
def standing_in(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with our params.yaml and stages that write files that tell their seed."""
    folder = tmp_path / "a checkout"
    for name in ("params.yaml", ".dvcignore", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((checkout / name).read_bytes())
    for stage in PIPELINE:
        (folder / "assets" / stage).mkdir(parents=True)
        (folder / "assets" / stage / "__init__.py").touch()
    stages = {name: {"cmd": f"python -m assets {name}", "params": [name], **stage} for name, stage in PIPELINE.items()}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "data/images").mkdir(parents=True)
    (folder / "assets/__init__.py").touch()
    (folder / "assets/__main__.py").write_text(STAND_IN)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(seeds, "REPEATED", ("curated_images", "evaluation"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("SEED_1_FAILS", str(tmp_path / "fails"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


def log_of(seed: int) -> str:
    return (artifacts.SEED_RUNS / str(seed) / "log.txt").read_text(encoding="utf-8")


def test_a_failed_seed_is_told_with_its_log_and_what_is_finished_is_not_repeated(standing_in, tmp_path, caplog):
    (tmp_path / "fails").touch()
    with pytest.raises(UserError, match="1 of 2 seeds succeeded"):
        seeds.run_seeds(2, 2)
    assert not artifacts.SEEDS.exists()
    (failure,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert failure.startswith("seed 1 failed; .cache/seeds/1/log.txt ends with")
    assert "AssertionError: seed 1 is not liked" in log_of(1)
    # seed 0 is done: the code that was edited meanwhile is not what it ran
    edited = Path("assets/evaluation/__init__.py")
    assert "half written" in edited.read_text()
    edited.write_text("")

    (tmp_path / "fails").unlink()
    found = seeds.run_seeds(2, 1)
    assert found == artifacts.read_json(artifacts.SEEDS)
    assert (found["seeds"], found["missing"]) == ([0, 1], [])
    assert found["rows"][1]["measures"]["average"]["values"] == [1, 11]
    assert found["rows"][4]["measures"]["average"]["against_base"]["values"] == [4, 4]
    assert "Running stage" not in log_of(0)
    assert log_of(1).count("Running stage") == 1


def test_data_from_outside_is_what_no_repeated_stage_makes(checkout):
    pipeline, written = (yaml.safe_load((checkout / name).read_text(encoding="utf-8")) for name in ("dvc.yaml", "params.yaml"))
    repeated = [(stage, recipe) for stage in STAGES if stage.name in seeds.REPEATED for recipe in stage.recipes]
    params, _ = read_params(checkout / "params.yaml")
    read = {path for stage, recipe in repeated for path in stage.inputs(recipe, params)}
    made = {path for stage, recipe in repeated for path in stage.outputs(recipe)}
    assert set(seeds.given_inputs(pipeline, written)) == read - made
    assert artifacts.SOURCE_IMAGES in read - made
    pipeline["stages"]["evaluation"]["deps"].append("${source_images.image_folder.root}/benchmarks")
    assert Path("data/images/benchmarks") in seeds.given_inputs(pipeline, written)


def prepared(written: dict) -> tuple[Path, dict]:
    workspace = artifacts.SEED_RUNS / "1"
    seeds.prepare(workspace, 1, artifacts.read_yaml(seeds.PIPELINE), written, "cache")
    return workspace, yaml.safe_load((workspace / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def with_benchmarks(standing_in: Path) -> dict:
    """The settings of a checkout whose evaluation depends on benchmarks, as ours does, with a picture of one."""
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    pipeline["stages"]["evaluation"]["deps"].append("${evaluation.benchmarks_root}")
    Path("dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for path in (SOURCE, "data/benchmarks/gpr1200/1.jpg"):
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("root", ["data/benchmarks", "/data/benchmarks", "../benchmarks"])
def test_seeds_measure_no_benchmarks(with_benchmarks, root):
    with_benchmarks["evaluation"]["benchmarks_root"] = root
    workspace, found = prepared(with_benchmarks)
    assert (workspace / SOURCE).is_file()
    assert found["evaluation"]["benchmarks_root"] == "data/benchmarks"
    assert [path.name for path in (workspace / "data/benchmarks").iterdir()] == [".gitkeep"]


def test_files_that_dvc_does_not_watch_are_found_from_a_copy(with_benchmarks):
    for name in ("captions.txt", "model.pt"):
        Path(name).touch()
    with_benchmarks["pseudo_captions"]["extra_corpora"] = ["captions.txt", "not there.txt"]
    with_benchmarks["base_clip"] = {"seed": 0, "source": "open_clip", "model": "ViT-B-32", "pretrained": "model.pt"}
    _, found = prepared(with_benchmarks)
    assert found["pseudo_captions"]["extra_corpora"] == [str(Path("captions.txt").resolve()), "not there.txt"]
    assert found["base_clip"]["pretrained"] == str(Path("model.pt").resolve())
    with_benchmarks["base_clip"]["pretrained"] = "openai"
    Path("openai").mkdir()
    assert prepared(with_benchmarks)[1]["base_clip"]["pretrained"] == "openai"


def test_an_interruption_ends_dvc_and_its_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    script = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"long": {"cmd": f'{sys.executable} -c "{script}"'}}}))
    runs, succeeded = seeds.Runs(None), []
    thread = threading.Thread(target=lambda: succeeded.append(runs.repro(tmp_path, 0)))
    thread.start()
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    runs.stop()
    thread.join(20)
    assert succeeded == [False]
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid.read_text()], capture_output=True, text=True, check=False).stdout.strip()
    assert state[:1] in ("", "Z")
    assert runs.repro(tmp_path, 0) is False  # nothing is started any more


@pytest.mark.parametrize(("count", "abreast"), [(1, 1), (0, 1), (3, 0), (2, 3)])
def test_impossible_numbers_are_told(count, abreast):
    with pytest.raises(UserError, match="make seeds N="):
        seeds.run_seeds(count, abreast)


def test_two_at_once_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with seeds.alone(), pytest.raises(UserError, match="already running"), seeds.alone():
        pass


def test_what_is_not_a_number_gets_the_usage(capsys):
    assert seeds.main(["three"]) == 2
    assert "python -m assets.report.seeds N [J]" in capsys.readouterr().err
