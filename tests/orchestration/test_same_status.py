"""Dagster calls the same stages out of date as `dvc status` does, whatever happened by either door."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from dagster import DagsterInstance
from dvc.dependency import param
from dvc.dependency.base import Dependency
from dvc.output import Output
from dvc.repo import Repo
from dvc.utils.serialize import load_path

from orchestration import record
from orchestration.record import read_records

if TYPE_CHECKING:
    from tests.orchestration.conftest import Toy

FRESH: set[str] = set()
COPIES = {"copy@a", "copy@b"}
Situation = Iterator[set[str]]  # does something, then says what must be out of date, as often as it likes


def fresh_instance_after_repro(toy: Toy, instance: DagsterInstance) -> Situation:
    assert toy.tick(instance) == ["words", "copy@a", "copy@b", "both"]
    yield FRESH
    assert toy.tick(instance) == []


def materialize_all_with_no_change(toy: Toy, instance: DagsterInstance) -> Situation:
    result = toy.materialize(instance)
    told = [event.step_materialization_data.materialization.metadata["made"].value for event in result.get_asset_materialization_events()]
    assert told == ["unchanged, taken from dvc.lock"] * 4
    assert toy.runs() == 0
    toy.tick(instance)
    yield FRESH


def param_edit_then_dvc(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.set("curated_images", seed=7)
    assert toy.tick(instance) == []
    yield COPIES
    toy.dvc("repro", "copy@a")
    toy.tick(instance)
    yield {"copy@b", "both"}
    toy.dvc("repro")
    assert set(toy.tick(instance)) == {"copy@b", "both"}
    yield FRESH


def param_edit_then_dagster(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.set("curated_images", seed=7)
    toy.tick(instance)
    yield COPIES
    toy.materialize(instance, "copy@a")
    yield {"copy@b", "both"}
    toy.materialize(instance, "copy@b", "both")
    yield FRESH
    assert toy.tick(instance) == []


def code_edit(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.replace("assets/copy/run.py", "{seed}", "seed {seed}")
    toy.tick(instance)
    yield COPIES
    toy.materialize(instance, "copy@a", "copy@b")
    yield {"both"}
    toy.replace("assets/copy/run.py", "seed {seed}", "{seed}")
    toy.tick(instance)
    yield {"copy@a", "copy@b", "both"}
    toy.dvc("repro")
    toy.tick(instance)
    yield FRESH


def raw_data_change(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.write("raw.txt", "other words\n")
    toy.tick(instance)
    yield {"words"}
    toy.materialize(instance, "words")
    yield COPIES
    toy.dvc("repro")
    toy.tick(instance)
    yield FRESH


def forced_identical_rerun(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.dvc("repro", "--force", "--single-item", "words")
    assert toy.runs() == 1
    assert toy.tick(instance) == []
    yield FRESH


def only_an_output_that_nothing_reads_changes(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.write("assets/words/run.py", toy.read("assets/words/run.py") + "# reverse")
    toy.tick(instance)
    yield {"words"}
    toy.materialize(instance, "words")
    toy.tick(instance)
    yield FRESH


def checkout_back_and_forth(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.set("curated_images", seed=7)
    toy.dvc("repro")
    toy.git("commit", "-q", "-a", "-m", "seed 7")
    toy.tick(instance)
    yield FRESH
    toy.git("checkout", "-q", "HEAD~1")
    toy.tick(instance)
    yield {"copy@a", "copy@b", "both"}  # the lock of then, the files of now
    toy.dvc("checkout")
    toy.tick(instance)
    yield FRESH
    toy.git("checkout", "-q", "-")
    toy.dvc("checkout")
    toy.tick(instance)
    yield FRESH
    assert toy.runs() == 0


def run_while_the_log_lags(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.write("raw.txt", "other words\n")
    toy.dvc("repro", "copy@a")  # Dagster is not told
    toy.materialize(instance, "copy@b")
    yield {"both"}
    toy.materialize(instance, "both")
    yield FRESH


def failed_stage(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.write("raw.txt", "other words\n")
    toy.write("fail", "told by the stage")
    assert not toy.materialize(instance, "words", "copy@a", raise_on_error=False).success
    yield {"words", "copy@a", "copy@b"}  # its outputs are gone
    (toy.folder / "fail").unlink()
    toy.dvc("repro")
    toy.tick(instance)
    yield FRESH


def killed_stage(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.write("raw.txt", "other words\n")
    toy.write("wait", "")
    killer = threading.Thread(target=lambda: toy.started().kill())
    killer.start()
    assert not toy.materialize(instance, "words", raise_on_error=False).success
    killer.join()
    yield {"words", "copy@a", "copy@b"}
    (toy.folder / "wait").unlink()
    toy.dvc("repro")
    toy.tick(instance)
    yield FRESH


def two_runs_at_once(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.write("raw.txt", "other words\n")
    toy.write("wait", "")
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "key:words", "-f", "definitions_of_the_toy.py"]
    toy.write(
        "definitions_of_the_toy.py",
        "from pathlib import Path\nfrom dagster import Definitions\nfrom orchestration.stage_assets import *\n"
        "stages, here = read_pipeline(Path.cwd()), Path.cwd()\n"
        "made = [stage_asset(each, here, lambda address: {}, lambda address: []) for each in stages]\n"
        "defs = Definitions(assets=[*outside_assets(stages), *made])\n",
    )
    environment = toy.environment | {"DAGSTER_HOME": instance.root_directory}
    doors = [
        subprocess.Popen(command, cwd=toy.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    toy.started()
    time.sleep(1)
    (toy.folder / "wait").unlink()
    told = [door.communicate(timeout=120)[0] for door in doors]
    assert [door.returncode for door in doors] == [0, 0], "\n".join(told)
    assert toy.runs() == 1, "the second run found the work done"
    toy.tick(instance)
    yield COPIES
    toy.dvc("repro")
    toy.tick(instance)
    yield FRESH


def output_deleted(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    (toy.folder / "data/copy_a.txt").unlink()
    toy.tick(instance)
    yield {"copy@a", "both"}
    toy.materialize(instance, "copy@a")
    toy.tick(instance)
    yield FRESH


def output_edited_by_hand(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.write("data/both.txt", "by hand")
    toy.tick(instance)
    yield {"both"}
    toy.dvc("checkout", "--force")
    toy.tick(instance)
    yield FRESH


def command_edited(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.replace("dvc.yaml", "cat data/copy_a.txt data/copy_b.txt", "cat data/copy_b.txt data/copy_a.txt")
    toy.tick(instance)
    yield {"both"}
    toy.dvc("repro")
    toy.tick(instance)
    yield FRESH


def stage_added(toy: Toy, instance: DagsterInstance) -> Situation:
    toy.tick(instance)
    toy.replace("dvc.yaml", "recipe: [a, b]", "recipe: [a, b, c]")
    toy.tick(instance)
    yield {"copy@c"}
    toy.materialize(instance, "copy@c")
    yield FRESH


def nothing_made_yet(toy: Toy, instance: DagsterInstance) -> Situation:
    (toy.folder / "dvc.lock").unlink()
    for name in ("words", "unread", "copy_a", "copy_b", "both"):
        (toy.folder / f"data/{name}.txt").unlink()
    toy.tick(instance)
    yield {"words", "copy@a", "copy@b", "both"}
    toy.materialize(instance)
    yield FRESH


def test_a_folder_that_several_stages_read_is_looked_at_once(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    looked: Counter[str] = Counter()
    status = Output.status

    def counted(self: Output) -> dict[str, str]:
        looked[self.def_path] += isinstance(self, Dependency)
        return status(self)

    def parsed(path: str, *arguments: object) -> object:
        looked[Path(path).name] += 1
        return load_path(path, *arguments)

    monkeypatch.setattr(Output, "status", counted)
    monkeypatch.setattr(param, "load_path", parsed)
    records = read_records(toy.folder)
    assert looked["params.yaml"] == 1
    assert looked["assets/copy"] == looked["data/words.txt"] == 1
    assert [record.changes for record in records] == [{}] * 4
    toy.replace("assets/copy/run.py", "{seed}", "seed {seed}")
    looked.clear()
    changed = {record.address: record.changes for record in read_records(toy.folder)}
    assert looked["assets/copy"] == 1
    assert changed == {"words": {}, **{name: {"changed deps": {"assets/copy": "modified"}} for name in COPIES}, "both": {}}


def test_half_of_a_lock_that_dvc_is_writing_is_read_again(toy: Toy, monkeypatch: pytest.MonkeyPatch):
    whole, expected = toy.read("dvc.lock"), read_records(toy.folder)

    def written_meanwhile(path: str) -> Repo:
        if toy.read("dvc.lock") != whole:
            toy.write("dvc.lock", whole)
        return Repo(path)

    monkeypatch.setattr(record, "Repo", written_meanwhile)
    for half in ("schema: '2.0'\nstages:\n", whole.partition("  words:")[0]):
        toy.write("dvc.lock", half)
        assert read_records(toy.folder) == expected, half
    toy.write("dvc.lock", whole[: whole.index("md5:") + 2])  # no YAML
    rest = threading.Timer(0.2, toy.write, ["dvc.lock", whole])
    rest.start()
    assert read_records(toy.folder) == expected
    rest.join()
    toy.write("dvc.lock", "a: b: c")
    with pytest.raises(yaml.YAMLError):
        read_records(toy.folder)


SITUATIONS: list[Callable[[Toy, DagsterInstance], Situation]] = [
    fresh_instance_after_repro,
    materialize_all_with_no_change,
    param_edit_then_dvc,
    param_edit_then_dagster,
    code_edit,
    raw_data_change,
    forced_identical_rerun,
    only_an_output_that_nothing_reads_changes,
    checkout_back_and_forth,
    run_while_the_log_lags,
    failed_stage,
    killed_stage,
    two_runs_at_once,
    output_deleted,
    output_edited_by_hand,
    command_edited,
    stage_added,
    nothing_made_yet,
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.__name__)
def test_dagster_and_dvc_call_the_same_stages_out_of_date(situation, toy: Toy, tmp_path: Path):
    # in memory, which takes a third of the time of files; two runs at once need files to meet in
    home = tmp_path / "home"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) if situation is two_runs_at_once else DagsterInstance.ephemeral() as instance:
        for number, expected in enumerate(situation(toy, instance), start=1):
            in_dvc, in_dagster = toy.stale_in_dvc(), toy.stale_in_dagster(instance)
            assert in_dagster == in_dvc, f"point {number}"
            assert in_dvc == expected, f"point {number}"
