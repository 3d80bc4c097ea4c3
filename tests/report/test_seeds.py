"""Several seeds: what is aggregated, how a copy of the checkout is made for each, and that finished work is kept and failures are told.

The runs are of dvc.yaml itself with stand-ins for the stages; tests/test_pulse.py puts real ones into a copy.
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
import json, pathlib, sys, yaml
stage, _, recipe = sys.argv[1].partition("@")
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
seed = params[stage].get("seed", 0)
made = pathlib.Path("data") / {"curated_images": "curated_images", "evaluation": f"evaluation/{recipe}"}.get(stage, stage)
outs = {
    "source_images": ["source_images/images.parquet"],
    "curated_images": [f"curated_images/{name}" for name in ("images.parquet", "rejected.parquet", "expectations.json")],
    "base_clip": ["models/base/weights"],
    "pseudo_captions": ["pseudo_captions/captions.parquet", "pseudo_captions/image_captions.parquet"],
    "image_tower": [f"models/{recipe}/weights", f"history/{recipe}.json"],
    "text_tower": [f"models/{recipe}_rea/weights", f"history/{recipe}_rea.json"],
    "evaluation": [f"evaluation/{recipe}/{name}" for name in
                   ("image_embeddings.npy", "text_embeddings.npy", "per_query.parquet", "per_class.parquet", "metrics.json")],
}[stage]
if stage == "text_tower":
    from assets.text_tower import FAILS_FOR
    assert seed != FAILS_FOR, f"seed {seed} is not liked"
if stage == "evaluation":
    import assets.evaluation
value = 10.0 * seed + len(recipe)
content = json.dumps({"recipe": recipe, "image_to_image": {"map": value, "recall_at_1": value}, "knn": {"accuracy": value},
    "zero_shot": {"accuracy": value}, "text_to_image": {"recall_at_5": value, "caption_recall_at_5": None}, "average": value})
for out in outs:
    path = pathlib.Path("data") / out
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
if stage == "curated_images":  # somebody edits the checkout meanwhile
    pathlib.Path("../../../assets/evaluation/__init__.py").write_text("raise RuntimeError('half written')")
"""


@pytest.fixture
def standing_in(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with our dvc.yaml and params.yaml, whose stages write files that tell their seed."""
    folder = tmp_path / "a checkout"
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((checkout / name).read_bytes())
    for stage in STAGES:
        for code in stage.code:
            file = folder / code if code.endswith(".py") else folder / code / "__init__.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    (folder / "data/images").mkdir(parents=True)
    (folder / "data/emoji").mkdir()
    for name in ("package.json", "package-lock.json"):
        (folder / "data/emoji" / name).write_text("{}")
    (folder / "assets/__init__.py").touch()
    (folder / "assets/__main__.py").write_text(STAND_IN)
    (folder / "assets/text_tower/__init__.py").write_text("FAILS_FOR = 1")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    config = folder / ".dvc" / "config.local"
    config.write_text("[core]\n    no_scm = true\n")
    return folder


def log_of(seed: int) -> str:
    return (artifacts.SEED_RUNS / str(seed) / "log.txt").read_text(encoding="utf-8")


def test_a_failed_seed_is_told_with_its_log_and_what_is_finished_is_not_repeated(standing_in, caplog):
    with pytest.raises(UserError, match="1 of 2 seeds succeeded"):
        seeds.run_seeds(2, 2)
    assert not artifacts.SEEDS.exists()
    (failure,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert failure.startswith("seed 1 failed; .cache/seeds/1/log.txt ends with")
    assert "AssertionError: seed 1 is not liked" in log_of(1)
    # the code that was edited while they ran is not the one they ran
    assert "half written" in Path("assets/evaluation/__init__.py").read_text()
    Path("assets/evaluation/__init__.py").write_text("")

    Path("assets/text_tower/__init__.py").write_text("FAILS_FOR = None")
    found = seeds.run_seeds(2, 1)
    assert found == artifacts.read_json(artifacts.SEEDS)
    assert (found["seeds"], found["missing"]) == ([0, 1], [])
    assert found["rows"][0]["measures"]["average"]["values"] == [4, 14]  # the length of "base", and 10 a seed
    assert found["rows"][4]["measures"]["average"]["against_base"]["values"] == [4, 4]
    for seed in (0, 1):
        assert "Running stage 'text_tower@gpr'" in log_of(seed)
        assert "Running stage 'image_tower@gpr'" not in log_of(seed)
    kept = yaml.safe_load((artifacts.SEED_RUNS / "1" / "params.yaml").read_text(encoding="utf-8"))
    assert kept["base_clip"]["seed"] == 1

    assert seeds.run_seeds(2, 2) == found
    assert "Running stage" not in log_of(0) + log_of(1)


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
    assert state in ("", "Z")
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
