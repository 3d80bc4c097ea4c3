"""The real pipeline on a tiny corpus through Dagster's door: made whole, found unchanged, held back, killed, resumed.

One workspace, a copy of the project that tests/conftest.py makes; a test that changes it puts it back by dvc.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lancedb
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dagster import AssetCheckKey, AssetKey, DagsterInstance, DagsterRunStatus, SkipReason, build_sensor_context
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from assets.artifacts import read_json, read_yaml
from assets.params import Guards, read_params
from orchestration.asset_checks import CHECKS
from orchestration.definitions import define
from orchestration.dvc_stage import end_orphans, running
from orchestration.record import asset_key
from orchestration.stage_assets import UNCHANGED, read_pipeline
from tests.orchestration.workspace import DAGSTER, LOCATION, Workspace, lives
from tests.tiny_project import Project, copy_project

PASSED, FAILED = AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED
LOST = (  # one of each kind: a recipe more would run the same code
    "source_images",
    "curated_images",
    "base_clip",
    "pseudo_captions",
    "training_captions@mcip",
    "image_tower@mcip",
    "text_tower@mcip_rea",
    "evaluation@mcip_rea",
    "champion",
    "promotion",
    "report",
    "search_table",
    "export",
)
EPOCHS = 30  # enough that none of the kills comes too late
NO_MESSAGES = "did not receive any messages"


@pytest.fixture(scope="module")
def workspace(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What `dvc repro` made; then some stages are lost, and Dagster is asked for everything."""
    folder = tmp_path_factory.mktemp("door") / "a checkout"
    copy_project(project.folder, folder)
    made = Workspace(folder, tmp_path_factory.mktemp("site"))
    made.forget(*LOST)
    made.dagster("asset", "materialize", "--select", "*")
    return made


def metadata(instance: DagsterInstance, address: str) -> dict[str, object]:
    event = instance.get_latest_materialization_event(asset_key(address))
    assert event is not None and event.asset_materialization is not None, address
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def verdicts(instance: DagsterInstance, checks: list[tuple[str, str]]) -> dict[tuple[str, str], AssetCheckExecutionRecordStatus | None]:
    keys = {(address, name): AssetCheckKey(asset_key(address), name) for address, name in checks}
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys.values()))
    return {check: found[key].status if key in found else None for check, key in keys.items()}


def checks_of(workspace: Workspace) -> list[tuple[str, str]]:
    addresses = [stage.address for stage in read_pipeline(workspace.folder)]
    return [(address, check.name) for address in addresses for check in CHECKS if check.stage == address.partition("@")[0]]


def test_what_is_missing_is_made_all_is_checked_and_dvc_has_nothing_left_to_do(workspace):
    assert workspace.status() == {}
    stages = read_pipeline(workspace.folder)
    assert {stage.address.partition("@")[0] for stage in stages} == {address.partition("@")[0] for address in LOST}
    with workspace.instance() as instance:
        for stage in stages:
            shown = metadata(instance, stage.address)
            assert "not shown" not in shown
            assert shown["made"] == ("now, by `dvc repro`" if stage.address in LOST else UNCHANGED), "made again, the same to the bit"
            assert stage.address not in LOST or "seconds" in shown, "what the stage told"
        assert set(verdicts(instance, checks_of(workspace)).values()) == {PASSED}
        assert metadata(instance, "curated_images")["rejected"] == 3
        assert metadata(instance, "search_table")["dagster/row_count"] == len(workspace.table())


def test_pictures_are_seen_without_a_click(workspace):
    with workspace.instance() as instance:
        for address, name in (
            ("source_images", "pictures"),
            ("base_clip", "loss curve"),
            ("image_tower@mcip", "loss curve"),
            ("search_table", "a sample search"),
        ):
            text = str(metadata(instance, address)[name])
            assert text.startswith("![](data:image/")
            assert len(text) < 1000, "Dagster's pages put longer Markdown behind a click"


def test_what_follows_a_recipe_is_found_unchanged_with_what_the_earlier_run_told(workspace):
    addresses = ("evaluation@mcip_rea", "promotion", "report")  # Dagster's command takes one + as one step down
    with workspace.instance() as instance:
        before = {address: metadata(instance, address) for address in addresses}
        said = workspace.dagster("asset", "materialize", "--select", "evaluation/mcip_rea+")
        assert NO_MESSAGES not in said
        assert "Running stage" not in said
        for address in addresses:
            assert metadata(instance, address) == before[address] | {"made": UNCHANGED}
    assert workspace.status() == {}


def test_what_dvc_made_outside_is_reported_with_its_checks(workspace):
    with DagsterInstance.ephemeral() as instance:
        sensor = define(workspace.folder).resolve_sensor_def("dvc_lock")
        context = build_sensor_context(instance=instance)
        assert isinstance(sensor(context), SkipReason)
        assert metadata(instance, "search_table")["made"] == "outside Dagster, taken from dvc.lock"
        found = verdicts(instance, checks_of(workspace))
        assert found.pop(("search_table", "vectors_are_the_model_s")) is None, "a sensor loads no model"
        assert set(found.values()) == {PASSED}


def test_a_sensor_that_reports_everything_imports_no_torch(workspace):
    script = (
        "import sys\nfrom dagster import DagsterInstance, build_sensor_context\nfrom orchestration.definitions import defs\n"
        "with DagsterInstance.ephemeral() as instance:\n"
        "    told = defs.resolve_sensor_def('dvc_lock')(build_sensor_context(instance=instance))\n"
        "assert 'search_table' in told.skip_message, told\n"
        "print(*sorted({'torch', 'open_clip', 'great_expectations'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workspace.folder, env=workspace.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_wrong_vectors_in_the_table_are_found(workspace, tmp_path):
    for name in ("curated_images", "models", "search_table"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(workspace.folder / "data" / name)
    (tmp_path / "data/lancedb").mkdir()
    (tmp_path / "data/lancedb/models").symlink_to(workspace.folder / "data/lancedb/models")
    rows = workspace.table()
    vectors = np.array(rows["vector"].to_pylist(), dtype=np.float32)
    (look,) = [check.look for check in CHECKS if check.name == "vectors_are_the_model_s"]
    settings = read_params(workspace.folder / "params.yaml")[0].orchestration
    params = read_yaml(workspace.folder / "params.yaml")
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    near = vectors + 0.045 * noise / np.linalg.norm(noise, axis=1, keepdims=True)  # cosine 0.999
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    other = np.roll(vectors, 17, axis=0)
    for stored, precision, passed in (
        (vectors, "fp32", True),
        (near, "fp32", False),
        (near, "bf16", True),
        (other, "fp32", False),
        (other, "bf16", False),
    ):
        params["search_table"]["precision"] = precision
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        column = pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel()), stored.shape[1])
        at = rows.column_names.index("vector")
        lancedb.connect(tmp_path / "data/lancedb").create_table("images", rows.set_column(at, "vector", column), mode="overwrite")
        assert look(tmp_path, "", settings).passed is passed


def test_the_gate_keeps_a_worse_recipe_from_being_published(workspace):
    params = workspace.folder / "params.yaml"
    before = params.read_text(encoding="utf-8")
    manifest = (workspace.folder / "data/search_table/manifest.json").read_bytes()
    try:
        workspace.change("promotion", must_rise={"knn": 100.0}, override_reason=None)
        said = workspace.dagster("asset", "materialize", "--select", "promotion+", code=1)
        assert workspace.json("data/promotion/verdict.json")["decision"] == "hold"
        with workspace.instance() as instance:
            assert verdicts(instance, [("promotion", "promotion_gate")]) == {("promotion", "promotion_gate"): FAILED}
        assert "report - STEP_SUCCESS" in said
        assert "search_table - STEP_FAILURE" in said
        assert "mcip_rea is held back" in said
        assert (workspace.folder / "data/search_table/manifest.json").read_bytes() == manifest
    finally:
        params.write_text(before, encoding="utf-8")
    workspace.dvc("repro", "promotion", "report")  # from the run cache
    assert workspace.status() == {}


def test_expectations_that_made_the_stage_fail_are_shown_as_a_failed_check(workspace):
    path = workspace.folder / "data/source_images/images/00000.parquet"
    rows = pq.read_table(path)
    names, labels = rows["class_name"].to_pylist(), rows["label"].to_pylist()
    names[next(row for row, label in enumerate(labels) if label is not None)] = " "
    try:
        spoilt = rows.set_column(rows.column_names.index("class_name"), "class_name", pa.array(names, rows["class_name"].type))
        path.unlink()
        pq.write_table(spoilt.cast(rows.schema), path)
        said = workspace.dagster("asset", "materialize", "--select", "curated_images", code=1)
        assert "a labelled image has a class name: not so for 1 image(s)" in said
        key = AssetCheckKey(AssetKey("curated_images"), "expectations")
        with workspace.instance() as instance:
            record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.status == FAILED
        evaluation = record.evaluation
        assert evaluation is not None and evaluation.blocking
        assert evaluation.description == "22 of 23 expectations met; not: a labelled image has a class name"
    finally:
        workspace.dvc("checkout", "--force")
    assert workspace.status() == {}


class Training:
    """A run of image_tower/gpr from the shell, which is its own worker, in the middle of an epoch: the run, dvc and the stage."""

    def __init__(self, workspace: Workspace, log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.worker = psutil.Popen(
                [*DAGSTER, "asset", "materialize", "--select", "image_tower/gpr", *LOCATION],
                cwd=workspace.folder,
                env=workspace.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self.wait(lambda: len(self.epochs()) >= 2)  # the state of the first is saved
        (self.dvc,) = [each for each in self.worker.children() if "dvc" in each.cmdline()]
        self.stage = self.dvc.children(recursive=True)[-1]
        assert "image_tower@gpr" in self.stage.cmdline()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def epochs(self) -> list[int]:
        return [int(number) for number in re.findall(rf"^\S+ epoch (\d+) of {EPOCHS}: ", self.said(), re.MULTILINE)]

    def resumed_after(self) -> int:
        found = re.search(r"resuming in epoch (\d+)", self.said())
        return int(found[1]) - 1 if found else 0

    def wait(self, until) -> None:
        deadline = time.monotonic() + 120
        while not until():
            assert self.worker.poll() is None and time.monotonic() < deadline, self.said()[-4000:]
            time.sleep(0.05)

    def ends(self, seconds: float) -> None:
        begun = time.monotonic()
        assert self.worker.wait(60) != 0
        assert time.monotonic() - begun < seconds
        assert not lives(self.dvc) and not lives(self.stage)


@pytest.fixture
def longer_training(workspace: Workspace) -> Iterator[Workspace]:
    params = workspace.folder / "params.yaml"
    before = params.read_text(encoding="utf-8")
    unwatched = dict.fromkeys(Guards.model_fields)  # so many epochs on so few pictures are drift
    workspace.change("image_tower", epochs=EPOCHS, validations=EPOCHS, guards=unwatched)
    yield workspace
    for left in psutil.Process().children(recursive=True):  # of a test that failed
        left.kill()
    end_orphans(workspace.folder, lambda text: None)
    params.write_text(before, encoding="utf-8")
    workspace.dvc("repro", "--single-item", "image_tower@gpr")  # from the run cache
    assert workspace.status() == {}


def test_whatever_is_killed_the_next_run_goes_on_from_the_last_epoch(longer_training, tmp_path):
    workspace, number = longer_training, 0
    untouched = {path: path.read_bytes() for path in (workspace.folder / "data/models/mcip").iterdir()}

    def go_on(after: Training | None) -> Training:
        nonlocal number
        number += 1
        training = Training(workspace, tmp_path / f"{number}.log")
        if after:
            assert training.resumed_after() in after.epochs()[-2:], "the last saved state: of the last told epoch, or the one before"
        return training

    def left_clean() -> None:
        assert running(workspace.folder) == []
        assert not list(workspace.folder.glob("data/**/.*.tmp"))
        assert not (workspace.folder / "data/models/gpr").exists(), "no half model"
        assert {path: path.read_bytes() for path in untouched} == untouched

    training = go_on(None)
    training.stage.kill()
    training.wait(lambda: "STEP_UP_FOR_RETRY" in training.said())
    left_clean()
    training.worker.send_signal(signal.SIGTERM)  # it would go on by itself, after the delay of params.yaml
    training.ends(seconds=10)

    training = go_on(training)
    training.dvc.kill()
    training.wait(lambda: "STEP_UP_FOR_RETRY" in training.said())
    left_clean()
    assert not lives(training.stage)
    training.worker.kill()  # while it waits
    training.ends(seconds=10)

    training = go_on(training)
    training.worker.send_signal(signal.SIGTERM)
    training.ends(seconds=10)
    left_clean()

    training = go_on(training)
    training.worker.kill()
    training.worker.wait(60)
    assert lives(training.stage), "an orphan, which nobody saw die"
    training.stage.suspend()  # for dvc's own door to meet it
    said = workspace.dvc("repro", "--single-item", "image_tower@gpr", code=255)
    assert "is busy, it is being blocked by" in said and str(training.dvc.pid) in said
    orphan = training

    training = go_on(orphan)
    training.stage.suspend()  # looking takes seconds, in which it could end
    assert "image_tower@gpr was still running for run" in training.said()
    assert not lives(orphan.stage) and not lives(orphan.dvc)
    with workspace.instance() as instance:
        newest, *before = [record.dagster_run.status for record in instance.get_run_records(limit=number)]
    assert newest == DagsterRunStatus.STARTED
    assert set(before) == {DagsterRunStatus.FAILURE}, "also those that could not say so themselves"
    training.stage.resume()
    training.worker.send_signal(signal.SIGINT)
    training.ends(seconds=10)
    left_clean()

    said = workspace.run("sh", "-c", f"'{DAGSTER[0]}' -m dvc repro --single-item image_tower@gpr 2>&1")
    last = training.epochs()[-1]
    assert f"resuming in epoch {last + 1}," in said or f"resuming in epoch {last}," in said
    assert len(read_json(workspace.folder / "data/history/gpr.json")["rows"]) == 1 + EPOCHS, "no epoch is lost, none is told twice"
    assert "image_tower@gpr" not in workspace.status()
    assert not list((workspace.folder / ".cache/training").glob("image_tower-gpr-*")), "a finished training keeps no state"
