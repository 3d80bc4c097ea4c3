"""Where a run's state lies, and that a resumed run reads it once. That it goes on bit for bit: test_loop.py."""

import pytest
import torch

from assets.imports import imported_files
from assets.training import state
from assets.training.loop import fit
from assets.training.state import forget_state, state_dir_for
from tests.training.test_loop import EVERY_STEP, SETTINGS, task

GIVEN = {"params": {"lr": 1.0, "seed": 0, "guards": {"min_spread": 0.1}}, "inputs": {"base": "abc"}}


def given(**params):
    return GIVEN | {"params": GIVEN["params"] | params}


def test_a_state_is_found_only_by_the_same_settings_and_inputs():
    first = state_dir_for("image_tower", "gpr", GIVEN)
    assert first == state_dir_for("image_tower", "gpr", {name: GIVEN[name] for name in reversed(GIVEN)})
    others = [
        state_dir_for("image_tower", "gpr", given(lr=2.0)),
        state_dir_for("image_tower", "gpr", GIVEN | {"inputs": {"base": "other"}}),
        state_dir_for("image_tower", "mcip", GIVEN),
        state_dir_for("text_tower", "gpr", GIVEN),
    ]
    assert len({first, *others}) == 5


def test_a_run_that_a_guard_stopped_is_found_again_with_the_guard_loosened():
    assert state_dir_for("image_tower", "gpr", given(guards={"min_spread": None})) == state_dir_for("image_tower", "gpr", GIVEN)


@pytest.mark.parametrize("stage", ["base_clip", "image_tower", "text_tower"])
@pytest.mark.parametrize("file", ["loop.py", "length.py", "encoder.py", "table.py", "trainable.py", "retrieval.py"])
def test_a_change_of_any_code_that_shapes_a_training_starts_it_anew(stage, file, monkeypatch):
    before, real = state_dir_for(stage, "x", GIVEN), state.artifacts.sha256_of
    shaping = [path for path in imported_files(f"assets.{stage}.stage") if path.name == file]
    assert shaping, f"{stage} imports no {file}"
    monkeypatch.setattr(state.artifacts, "sha256_of", lambda path: "edited" if path in shaping else real(path))
    assert state_dir_for(stage, "x", GIVEN) != before


def test_code_of_other_stages_starts_nothing_anew():
    shaping = {path.name for path in imported_files("assets.text_tower.stage")}
    assert shaping.isdisjoint({"losses.py", "demo.py", "plots.py", "protocol.py"})


def test_a_resumed_run_reads_its_state_once(tmp_path, monkeypatch):
    _, run = task(die_at=(2, 4))
    with pytest.raises(KeyboardInterrupt):
        fit(run, SETTINGS, EVERY_STEP, tmp_path)
    read, real = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **named: read.append(given) or real(*given, **named))
    _, run = task()
    fit(run, SETTINGS, EVERY_STEP, tmp_path)
    assert len(read) == 1


def test_a_process_more_than_before_resumes_with_random_numbers_of_its_own(tmp_path, monkeypatch):
    """training.processes is not part of what a state is found by, so a killed run may go on in more processes."""
    _, run = task(die_at=(2, 4))
    with pytest.raises(KeyboardInterrupt):
        fit(run, SETTINGS, EVERY_STEP, tmp_path)
    real = torch.load  # of a state with no row for this process, as one saved by fewer has none for the last
    monkeypatch.setattr(torch, "load", lambda *given, **named: (found := real(*given, **named)) | {"random": found["random"][:0]})
    _, run = task()
    assert fit(run, SETTINGS, EVERY_STEP, tmp_path)


def test_a_finished_run_leaves_no_state(tmp_path):
    (tmp_path / "state").mkdir()
    forget_state(tmp_path / "state")
    forget_state(tmp_path / "state")  # of a run that was killed after it forgot
    assert not (tmp_path / "state").exists()
