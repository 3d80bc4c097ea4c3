"""A small regression in a group of processes, for tests of the engine; torch and the loop are all that it loads."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from assets.params import Guards, Optimization, Training
from assets.training.distributed import own_rows, rank, world_size
from assets.training.loop import fit
from assets.training.optimizer import decay_groups
from assets.training.randomness import generator_for
from assets.training.run import Task

STEPS, PAIRS = 4, 8  # of an epoch; of the batch of all ranks
SETTINGS = Optimization(
    seed=0,
    device="cpu",
    precision="fp32",
    steps=1,
    epochs=3,
    validations=12,
    min_validation_pictures=1,
    batch_size=PAIRS,
    max_batch_share=1.0,
    final_lr_fraction=0.1,
    weight_decay=0.01,
    warmup_fraction=0.2,
    gradient_clip_norm=1.0,
    accumulate=1,
    ema_decay=None,
    gradient_checkpointing=False,
    guards=Guards.model_validate(dict.fromkeys(Guards.model_fields)),
)
EVERY_STEP = Training(processes=2, compile=False, checkpoint_minutes=0.0)


def regress(folder: Path, dies_at: tuple[int, int] | None) -> None:
    """Writes weights.pt. The last rank is killed before the step `dies_at` (epoch, step), the first time that it gets there."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    truth = torch.tensor([[1.0, -2.0, 3.0, 0.5]])

    def batches(epoch: int, done: int):
        for step in range(done, STEPS):
            if (epoch, step) == dies_at and rank() == world_size() - 1 and not (folder / "died").exists():
                (folder / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield torch.randn(PAIRS, 4, generator=generator_for(epoch, step))[own_rows(PAIRS)]

    task = Task(
        modules={"model": model},
        parameter_groups=decay_groups(dict(model.named_parameters()), 0.1, 0.01),
        batches=batches,
        steps_per_epoch=STEPS,
        loss=lambda x: (model(x) - x @ truth.T).square().mean(),
        validate=lambda: {"score": -float((model.weight.detach() - truth).square().sum())},
        select_by="score",
        images_per_step=PAIRS,
    )
    rows = fit(task, SETTINGS, EVERY_STEP, folder / "state")
    if rank() == 0:
        torch.save({"weights": model.state_dict(), "rows": rows}, folder / "weights.pt")
