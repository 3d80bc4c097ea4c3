"""Both training stages in two real processes (gloo) against one: losses, gradients, resuming; and what happens when one of them dies."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from assets import artifacts
from assets.clip.model import WEIGHTS
from assets.errors import UserError
from assets.image_tower import stage as image_tower
from assets.params import Guards, ImageTower, TextTower, Training, read_params
from assets.recipes import Recipe
from assets.text_tower import stage as text_tower
from assets.training import loop, tuning, validation
from assets.training.distributed import rank, whole
from assets.training.processes import run_in_processes
from tests.models import write_model
from tests.settings import demo_settings
from tests.training.tables import curated_row, png, realigned, tuned, write_curated, write_training_captions

CLASSES = ("red", "green", "blue")  # of which one rank holds one, the other two
TRAINERS = {"image": image_tower._train, "text": text_tower._realign}


def training(processes: int) -> Training:
    return Training(processes=processes, compile=False, checkpoint_minutes=0.0)


@pytest.fixture(scope="module")
def sections(checkout):
    written = demo_settings()
    unguarded = dict.fromkeys(Guards.model_fields)  # random weights collapse easily, which is not the question
    small = {
        "steps": 1,
        "epochs": 2,
        "batch_size": 8,
        "max_batch_share": 1.0,
        "min_validation_pictures": 1,
        "device": "cpu",
        "guards": unguarded,
        "trains": "all",
    }
    return {
        "image": ImageTower.model_validate(written["image_tower"] | small | {"batch_norm_from": 1}),
        "text": TextTower.model_validate(written["text_tower"] | small | {"lr": 3e-5, "views": 2}),
    }


def write_pictures() -> None:
    random = np.random.default_rng(0)
    rows = []
    for label in CLASSES:
        for view in range(10):
            image = png(random.integers(0, 256, (36, 36, 3)))
            texts = {"class_name": label, "captions": [f"{label} square", "a colour"]}
            rows.append(curated_row(label, view, image, "validation" if view < 2 else "train", **texts))
    write_curated(rows)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures()
    return tmp_path


def watched(which: str, recipe: Recipe, how: Training, dies_at: int | None, folder: Path) -> None:
    """Train; keep the first step's gradients; the last rank dies before step `dies_at`."""
    real, steps = loop.clip_gradients_, 0

    def clip(replicated, sharded, max_norm):
        nonlocal steps
        steps += 1
        if steps == dies_at and rank() == how.processes - 1:
            os._exit(9)
        if steps == 1:
            gradients = {"replicated": [each.grad for each in replicated], "sharded": [whole(each.grad) for each in sharded]}
            torch.save(gradients, folder / f"{how.processes}-{rank()}.pt")
        return real(replicated, sharded, max_norm)

    loop.clip_gradients_ = clip
    try:
        TRAINERS[which](recipe, how)
    finally:
        loop.clip_gradients_ = real


def train(which: str, recipe: Recipe, processes: int, folder: Path, dies_at: int | None = None) -> tuple[bytes, list[dict]]:
    """(the weights written, the history)."""
    run_in_processes(processes, "cpu", watched, which, recipe, training(processes), dies_at, folder)
    weights = artifacts.model_dir(recipe.name) / WEIGHTS
    return weights.read_bytes(), artifacts.read_json(artifacts.history_file(recipe.name))["rows"]


def largest_difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """As a share of the largest gradient there is."""
    largest = max(float(each.abs().max()) for each in expected)
    return max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)) / largest


KINDS = {  # of both stages, what differs between processes: with and without captions, batch norms, a loss of all ranks' texts
    "image-vit": ("image", 0.25, "vit"),
    "image-timm_and_hugging_face": ("image", 0.0, "timm_and_hugging_face"),
    "text-vit": ("text", None, "vit"),
    "text-sigmoid": ("text", None, "sigmoid"),
}


def plainly(recipe: Recipe, how: Training, folder: Path) -> None:
    image_tower._train(recipe, how)


def in_turn(jobs: list[tuple[Path, Callable[..., None], tuple[object, ...]]]) -> None:
    """Each in a folder of its own, one after the other in the same processes, which take longer to start than all of this."""
    for folder, function, arguments in jobs:
        os.chdir(folder)
        function(*arguments, folder)


@pytest.fixture(scope="module")
def trained(sections, tmp_path_factory) -> dict[str, tuple[Path, list[list[dict]]]]:
    """What is compared below: folders with gradients, and the histories of one process and of two."""
    root, recipes = tmp_path_factory.mktemp("trained"), {}
    kinds = KINDS | {"sampled": ("image", 0.0, "vit"), "way back": ("image", 0.0, "vit")}
    rows = {name: (root / name, []) for name in kinds}
    with pytest.MonkeyPatch.context() as patch:
        for name, (which, caption_weight, kind) in kinds.items():
            (root / name).mkdir()
            patch.chdir(root / name)
            write_pictures()
            write_model(artifacts.model_dir("base"), kind)
            own = {"sampled": {"sampled_classes": len(CLASSES)}, "way back": {"way_back": [0.25, 0.75]}}.get(name, {})
            if which == "image":
                recipes[name] = tuned("tuned", sections["image"], caption_weight=caption_weight, **own)
                write_training_captions("tuned")
            else:
                recipes[name] = realigned("base_rea", sections["text"], "base")
        for count in (1, 2):
            jobs = [(root / name, watched, (KINDS[name][0], recipes[name], training(count), None)) for name in KINDS]
            jobs.append((root / "sampled", plainly, (recipes["sampled"], training(count))))  # its gradients are sparse
            if count == 2:
                jobs.append((root / "way back", going_back, (recipes["way back"], training(count))))
            run_in_processes(count, "cpu", in_turn, jobs)
            for name in rows.keys() - {"way back"}:
                rows[name][1].append(artifacts.read_json(root / name / artifacts.history_file(recipes[name].name))["rows"])
    return rows


@pytest.mark.parametrize("name", KINDS)
def test_two_processes_train_as_one(trained, name):
    which, _, kind = KINDS[name]
    workspace, (alone, together) = trained[name]
    expected = torch.load(workspace / "1-0.pt")
    rounding = 1e-4 if kind == "timm_and_hugging_face" else 1e-5  # of batch norms with one thread it is 6e-6 to 1.1e-5, by the seed
    for own_rank in (0, 1):
        assert largest_difference(torch.load(workspace / f"2-{own_rank}.pt")["replicated"], expected["replicated"]) < rounding
    assert largest_difference(torch.load(workspace / "2-0.pt")["sharded"], expected["sharded"]) < rounding if which == "image" else True
    first, other = alone[1], together[1]
    # batch norm over a handful of noisy pictures doubles a rounding error with every step
    tolerance = 1e-3 if kind == "timm_and_hugging_face" else 1e-5
    assert other["loss"] == pytest.approx(first["loss"], rel=tolerance)
    assert other["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=tolerance)


def test_all_classes_sampled_is_training_without_sampling(trained, workspace, sections):
    write_model(artifacts.model_dir("base"))
    image_tower._train(tuned("gpr", sections["image"]), training(1))
    expected = artifacts.read_json(artifacts.history_file("gpr"))["rows"][-1]
    for rows in trained["sampled"][1]:
        assert {name: rows[-1][name] for name in ("loss", "gradient_norm")} == pytest.approx(
            {name: expected[name] for name in ("loss", "gradient_norm")},
            rel=1e-4,  # rounding, after six steps
        )


def test_two_processes_of_which_one_dies_go_on_as_if_nothing_had_been(workspace, sections):
    write_model(artifacts.model_dir("base"))
    recipe = tuned("gpr", sections["image"], ema_decay=0.5)
    whole_run = train("image", recipe, 2, workspace)
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"process 1 \(exit code 9\) of 0 … 1 has ended"):
        train("image", recipe, 2, workspace, dies_at=5)  # of six
    assert time.monotonic() - begun < 60
    (left,) = (artifacts.WORK / "training").iterdir()
    assert sorted(state.name for state in left.glob("*.pt"))[-1] == "round00002-step000000001.pt"
    assert train("image", recipe, 2, workspace) == whole_run


def going_back(recipe: Recipe, how: Training, folder: Path) -> None:
    """Train; every validation is better than the one before, so that the last point of the way back is kept."""
    scores, real = itertools.count(), tuning.go_back

    def go_back(model, *given):
        kept = real(model, *given)
        torch.save(model.state_dict(), folder / f"kept-{rank()}.pt")
        return kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "measures", lambda *given: {"search": float(next(scores))})
        patch.setattr(tuning, "go_back", go_back)
        image_tower._train(recipe, how)


def test_two_processes_go_the_same_way_back(trained):
    """The first alone validates: the others must wait for it at each point, and end where it does."""
    workspace, _ = trained["way back"]
    kept = artifacts.read_json(workspace / artifacts.history_file("tuned"))["kept"]
    assert (kept["share"], [point["share"] for point in kept["way_back"]]) == (0.75, [0.25, 0.75])
    first, second = (torch.load(workspace / f"kept-{number}.pt") for number in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_followers_end_with_the_first_process(tmp_path, checkout):
    script = f"""
import os, time
from pathlib import Path
from assets.training.distributed import rank
from assets.training.processes import run_in_processes

def sleep():
    Path({str(tmp_path)!r}, str(rank())).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    run_in_processes(2, "cpu", sleep)
"""
    (tmp_path / "sleep.py").write_text(script, encoding="utf-8")
    first = subprocess.Popen([sys.executable, tmp_path / "sleep.py"], env=os.environ | {"PYTHONPATH": str(checkout)})
    try:
        follower = number_in(tmp_path / "1")
        number_in(tmp_path / "0")
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{follower}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{follower}").exists()


def number_in(file: Path) -> int:
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, f"no {file.name}"
        time.sleep(0.1)
    return int(file.read_text())


def test_processes_started_wait_as_the_first_does_before_torch_loads(tmp_path, checkout):
    """OpenMP reads how long its threads spin when torch loads it, so a follower must find that in its environment."""
    script = f"""
from pathlib import Path
from assets.machine import SPINS, tune_for_torch
tune_for_torch()
from assets.training.distributed import rank
from assets.training.processes import run_in_processes

def spins():
    at_start = Path("/proc/self/environ").read_text().split("\\0")  # as the process was started, whatever it has set since
    Path({str(tmp_path)!r}, str(rank())).write_text(str(f"GOMP_SPINCOUNT={{SPINS}}" in at_start))

if __name__ == "__main__":
    run_in_processes(2, "cpu", spins)
"""
    (tmp_path / "spins.py").write_text(script, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    subprocess.run([sys.executable, tmp_path / "spins.py"], env=environment | {"PYTHONPATH": str(checkout)}, check=True, timeout=120)
    assert (tmp_path / "1").read_text() == "True"


def test_torchrun_starts_the_processes_too(tmp_path, checkout):
    script = """
import sys
import torch
from assets.training.distributed import gather, rank
from assets.training.processes import run_in_processes

def tell(word):
    ranks = gather(torch.tensor([rank()])).tolist()
    if rank() == 0:
        print(word, ranks)

run_in_processes(int(sys.argv[1]), "cpu", tell, "ranks")
"""
    (tmp_path / "tell.py").write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "tell.py"]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "2"], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "ranks [0, 1]\n"
    other = subprocess.run([*command, "3"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert other.returncode != 0
    assert "torchrun has started 2 processes and the setting processes is 3" in other.stderr


@pytest.mark.parametrize(
    ("processes", "row", "message"),
    [
        (3, {}, r"training\.processes: given 3; the batch_size of gpr must be a multiple, and is 128"),
        (2, {"precision": "fp16"}, r"training\.processes: given 2; gpr has precision fp16.*Use bf16"),
    ],
)
def test_settings_that_cannot_be_shared_out(checkout, tmp_path, processes, row, message):
    written = demo_settings()
    written["training"]["processes"] = processes
    written["recipes"]["image_tower"]["gpr"] |= row
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_params(tmp_path / "params.yaml")


def test_a_single_accelerator_is_not_shared(checkout):
    with pytest.raises(UserError, match="device 'cuda:1' is a single one"):
        run_in_processes(2, "cuda:1", print)
    if torch.cuda.device_count() < 9:
        with pytest.raises(UserError, match="processes: 9, but this machine has"):
            run_in_processes(9, "cuda", print)
