"""What waiting threads of OpenMP cost, alone and beside other work: `python -m tests.benchmarks.openmp`.

libgomp's threads spin while they wait for work. Measured on the demo's image tower with synthetic pixels: training steps and encoding,
each alone, beside a busy process, and two at once, by libgomp's default and by other settings (assets/machine.py has the chosen one).
Each in processes of its own, since libgomp reads the environment when it loads. Prints images/s and their ratio to the default alone;
asserts nothing; wants an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

SETTINGS = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
}
WORK = ("training", "encoding")
OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
BUSY = "while True: pass"
WARM_UP = 1  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)  # what a child measures
    asked = parser.parse_args()
    if asked.work:
        print(json.dumps(_images_per_second(asked.work, asked.seconds, asked.batch_size, asked.side)))  # noqa: T201
        return
    alone: dict[str, float] = {}
    for name, variables in SETTINGS.items():
        for work in WORK:
            (rate,) = _run(variables, asked, work)
            alone.setdefault(work, rate)
            beside = _beside_other_work(variables, asked, work)
            line = f"{name:24} {work}: alone {_shown(rate, alone[work])}, beside a busy process {_shown(beside, alone[work])}"
            if work == "training":
                both = _run(variables, asked, work, count=2)
                line += f", two at once {' and '.join(_shown(each, alone[work]) for each in both)}"
            print(line, flush=True)  # noqa: T201


def _shown(rate: float, reference: float) -> str:
    return f"{rate:.1f} images/s ({rate / reference:.2f})"


def _beside_other_work(variables: dict[str, str], asked: argparse.Namespace, work: str) -> float:
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        return _run(variables, asked, work)[0]
    finally:
        busy.kill()
        busy.wait()


def _run(variables: dict[str, str], asked: argparse.Namespace, work: str, count: int = 1) -> list[float]:
    """Images/s of `count` processes that begin to measure at the same time."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN} | variables
    command = [sys.executable, "-m", "tests.benchmarks.openmp", "--work", work, "--seconds", str(asked.seconds)]
    command += ["--batch-size", str(asked.batch_size), "--side", str(asked.side)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, env=environment, **pipes) for _ in range(count)]
    try:
        for child in children:
            if child.stdout.readline().strip() != "ready":
                sys.exit(f"{' '.join(command)} did not get ready")
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        return [json.loads(child.communicate()[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()


def _images_per_second(work: str, seconds: float, batch_size: int, side: int) -> float:
    from assets.machine import tune_for_torch

    given = os.environ.get("GOMP_SPINCOUNT")
    tune_for_torch()
    if given is None:
        os.environ.pop("GOMP_SPINCOUNT", None)  # memory as in a stage, but the spin count that is measured
    import torch

    from assets.base_clip.demo import untrained_clip

    torch.manual_seed(0)
    model = untrained_clip(side).visual.to(memory_format=torch.channels_last)
    pixels = torch.randn(batch_size, 3, side, side).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(pixels).square().mean().backward()
        optimizer.step()

    def encode() -> None:
        with torch.inference_mode():
            model(pixels)

    model.train(work == "training")
    step = train if work == "training" else encode
    for _ in range(WARM_UP):
        step()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    steps, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        step()
        steps += 1
    return steps * batch_size / passed


if __name__ == "__main__":
    main()
