"""ArcMargin forward and backward at 170,000 classes and at the demo's size, against the dense one-hot formulation that is in use:
`python -m tests.benchmarks.losses`. Prints seconds, peak memory and ratios; asserts nothing. Needs 3 GB, on a GPU if there is one.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, linear, normalize

from assets.image_tower.losses import arc_margin_loss

SIZES = {"170,000 classes": (128, 170_000, 768), "the demo": (128, 1_100, 384)}  # images, classes, width
SCALE, MARGIN = 30.0, 0.1
TURNS, ROUNDS = 2, 3
# glibc keeps what is freed, as in `python -m assets`: else every step pays for its pages anew
KEEPING_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}

Step = Callable[[], None]


def dense(embeddings: torch.Tensor, centers: torch.Tensor, labels: torch.Tensor, scale: float, margin: float) -> torch.Tensor:
    """As ArcFace is commonly written: margin on every logit, then chosen by a one-hot array."""
    cosine = linear(embeddings, normalize(centers))
    sine = torch.sqrt(1.0 - cosine.square()).clamp(1e-7, 1)
    with_margin = cosine * math.cos(margin) - sine * math.sin(margin)
    one_hot = torch.zeros_like(cosine).scatter_(1, labels[:, None], 1)
    return cross_entropy(scale * (one_hot * with_margin + (1.0 - one_hot) * cosine), labels)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {"arc_margin_loss": arc_margin_loss, "dense one-hot": dense}


def main() -> None:
    for title, (images, classes, width) in SIZES.items():
        logits, centers = images * classes * 4, classes * width * 4
        # what a step takes beyond its inputs and the centers' gradient
        beyond = {name: _in_a_process(name, title, "bytes") - centers for name in LOSSES}
        seconds = dict.fromkeys(LOSSES, math.inf)
        for name in list(LOSSES) * TURNS:  # in turn, so that a busy minute of the machine hits both
            seconds[name] = min(seconds[name], _in_a_process(name, title, "seconds"))
        print(f"{title}: batch {images}, width {width}; MiB of logits {logits / 2**20:.1f}, of centers {centers / 2**20:.1f}")  # noqa: T201
        for name in LOSSES:
            share = beyond[name] / (centers + 2.5 * logits)
            print(f"  {name}: {seconds[name] * 1000:.1f} ms a step (best of {TURNS * ROUNDS})")  # noqa: T201
            print(f"    beyond the centers and their gradient {beyond[name] / 2**20:.1f} MiB, {share:.2f} of what is allowed")  # noqa: T201
        ours, theirs = LOSSES
        times, memory = seconds[theirs] / seconds[ours], beyond[theirs] / beyond[ours]
        print(f"  {theirs}: {times:.2f} times the time, {memory:.1f} times the memory")  # noqa: T201


def measure(name: str, title: str, what: str) -> float:
    """Seconds of a step, or the bytes that the first step took at its peak."""
    step = _step(name, *SIZES[title])
    if what == "bytes":
        _step(name, 128, 64, 64)()  # what a first step loads
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        before = _peak()
        step()
        return _peak() - before
    step()
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _step(name: str, images: int, classes: int, width: int) -> Step:
    device, generator = "cuda" if torch.cuda.is_available() else "cpu", torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(images, width, generator=generator), dim=1).to(device).requires_grad_()
    centers = torch.randn(classes, width, generator=generator).to(device).requires_grad_()
    labels = torch.randint(classes, (images,), generator=generator).to(device)

    def step() -> None:
        embeddings.grad = centers.grad = None
        LOSSES[name](embeddings, centers, labels, SCALE, MARGIN).backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _in_a_process(name: str, title: str, what: str) -> float:
    """A process of its own, since a peak never falls."""
    command = [sys.executable, "-m", "tests.benchmarks.losses", name, title, what]
    environment = os.environ | (KEEPING_MEMORY if what == "seconds" else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} left with {done.returncode}:\n{done.stderr}")
    return float(done.stdout)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(measure(*sys.argv[1:]))  # noqa: T201
    else:
        main()
