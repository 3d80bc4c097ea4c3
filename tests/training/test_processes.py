"""Both training stages in two real processes (gloo) against one: losses, gradients, resuming; and what happens when one of them dies."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from assets import artifacts
from assets.clip.model import WEIGHTS
from assets.errors import UserError
from assets.image_tower import stage as image_tower
from assets.params import Guards, ImageTower, PseudoCaptions, TextTower
from assets.pseudo_captions.stage import make_pseudo_captions
from assets.text_tower import stage as text_tower
from assets.training import loop
from assets.training.distributed import rank, whole
from assets.training.processes import run_in_processes
from tests.models import write_model

CLASSES = ("red", "green", "blue")  # of which one rank holds one, the other two
TRAINERS = {"image": image_tower._train, "text": text_tower._realign}


@pytest.fixture(scope="module")
def sections(checkout):
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    unguarded = dict.fromkeys(Guards.model_fields)  # random weights collapse easily, which is not the question
    small = {"epochs": 2, "batch_size": 8, "device": "cpu", "guards": unguarded, "trains": "all", "checkpoint_minutes": 0.0}
    return {
        "pseudo_captions": PseudoCaptions.model_validate(
            written["pseudo_captions"] | {"device": "cpu", "min_similarity": -1.0, "top_k": 1}
        ),
        "image": ImageTower.model_validate(written["image_tower"] | small),
        "text": TextTower.model_validate(written["text_tower"] | small | {"lr": 3e-5, "views": 2}),
    }


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = []
    for label in CLASSES:
        for view in range(10):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (36, 36, 3), np.uint8)).save(buffer, "PNG")
            split = "validation" if view < 2 else "train"
            texts = {"class_name": label, "captions": [f"{label} square", "a colour"]}
            origin = {"source": "test", "license": "CC0-1.0", "attribution": "the tests", "sha256": "0" * 64}
            own = {"id": f"{label}/{view}", "image": buffer.getvalue(), "label": label, "split": split, "width": 36, "height": 36}
            rows.append(own | texts | origin)
    rows.sort(key=lambda row: (artifacts.SPLITS.index(row["split"]), row["id"]))
    artifacts.CURATED.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=artifacts.CURATED_SCHEMA), artifacts.CURATED_IMAGES, row_group_size=5)
    return tmp_path


def watched(which: str, settings, recipe: str, folder: Path, dies_at: int | None) -> None:
    """Train; keep the first step's gradients; the last rank dies before step `dies_at`."""
    real, steps = loop.clip_gradients_, 0

    def clip(replicated, sharded, max_norm):
        nonlocal steps
        steps += 1
        if steps == dies_at and rank() == settings.processes - 1:
            os._exit(9)
        if steps == 1:
            gradients = {"replicated": [each.grad for each in replicated], "sharded": [whole(each.grad) for each in sharded]}
            torch.save(gradients, folder / f"{settings.processes}-{rank()}.pt")
        return real(replicated, sharded, max_norm)

    loop.clip_gradients_ = clip
    try:
        TRAINERS[which](settings, recipe)
    finally:
        loop.clip_gradients_ = real


def train(which: str, settings, recipe: str, folder: Path, dies_at: int | None = None) -> tuple[bytes, list[dict]]:
    """(the weights written, the history)."""
    run_in_processes(settings.processes, "cpu", watched, which, settings, recipe, folder, dies_at)
    written = recipe if which == "image" else f"{recipe}_rea"
    return (artifacts.model_dir(written) / WEIGHTS).read_bytes(), artifacts.read_json(artifacts.history_file(written))["rows"]


def largest_difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """As a share of the largest gradient there is."""
    largest = max(float(each.abs().max()) for each in expected)
    return max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)) / largest


@pytest.mark.parametrize(
    ("which", "recipe", "kind"),
    [("image", "mcip", "vit"), ("image", "gpr", "timm_and_hugging_face"), ("text", "base", "vit"), ("text", "base", "sigmoid")],
)
def test_two_processes_train_as_one(workspace, sections, which, recipe, kind):
    write_model(artifacts.model_dir("base"), kind)
    if recipe == "mcip":
        make_pseudo_captions(sections["pseudo_captions"])
    (_, alone), (_, together) = (
        train(which, sections[which].model_copy(update={"processes": count}), recipe, workspace) for count in (1, 2)
    )
    expected = torch.load(workspace / "1-0.pt")
    for own_rank in (0, 1):
        assert largest_difference(torch.load(workspace / f"2-{own_rank}.pt")["replicated"], expected["replicated"]) < 1e-5
    assert largest_difference(torch.load(workspace / "2-0.pt")["sharded"], expected["sharded"]) < 1e-5 if which == "image" else True
    first, other = alone[0], together[0]
    # batch norm over a handful of noisy pictures doubles a rounding error with every step
    tolerance = 1e-3 if kind == "timm_and_hugging_face" else 1e-5
    assert other["loss"] == pytest.approx(first["loss"], rel=tolerance)
    assert other["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=tolerance)


def test_all_classes_sampled_is_training_without_sampling(workspace, sections):
    write_model(artifacts.model_dir("base"))
    rows = []
    for update in ({}, {"sampled_classes": len(CLASSES)}, {"sampled_classes": len(CLASSES), "processes": 2}):
        settings = sections["image"].model_copy(update=update)
        run_in_processes(settings.processes, "cpu", image_tower._train, settings, "gpr")
        rows.append(artifacts.read_json(artifacts.history_file("gpr"))["rows"][-1])
    for other in rows[1:]:
        assert {name: other[name] for name in ("loss", "gradient_norm")} == pytest.approx(
            {name: rows[0][name] for name in ("loss", "gradient_norm")}, rel=1e-5
        )


def test_two_processes_of_which_one_dies_go_on_as_if_nothing_had_been(workspace, sections):
    write_model(artifacts.model_dir("base"))
    settings = sections["image"].model_copy(update={"processes": 2, "ema_decay": 0.5})
    whole_run = train("image", settings, "gpr", workspace)
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"process 1 \(exit code 9\) of 0 … 1 has ended"):
        train("image", settings, "gpr", workspace, dies_at=5)  # of six
    assert time.monotonic() - begun < 60
    (left,) = (artifacts.WORK / "training").iterdir()
    assert sorted(state.name for state in left.glob("*.pt"))[-1] == "epoch00002-step000000001.pt"
    assert train("image", settings, "gpr", workspace) == whole_run


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
    ("update", "message"),
    [({"processes": 3}, "batch_size 128 is no multiple of it"), ({"processes": 2, "precision": "fp16"}, "take bf16")],
)
def test_settings_that_cannot_be_shared_out(checkout, update, message):
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))["image_tower"]
    with pytest.raises(ValueError, match=message):
        ImageTower.model_validate(written | update)


def test_a_single_accelerator_is_not_shared(checkout):
    with pytest.raises(UserError, match="device 'cuda:1' is a single one"):
        run_in_processes(2, "cuda:1", print)
    if torch.cuda.device_count() < 9:
        with pytest.raises(UserError, match="processes: 9, but this machine has"):
            run_in_processes(9, "cuda", print)
