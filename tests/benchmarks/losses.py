"""ArcMargin forward and backward at 170,000 classes and at the demo's size, against the dense one-hot formulation that is in use:
`python -m tests.benchmarks.losses`. Prints seconds, peak memory and ratios; asserts nothing. Needs 3 GB, on a GPU if there is one.
"""

from __future__ import annotations

import json
import math
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
ROUNDS = 5


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
        print(f"{title}: batch {images}, width {width}")  # noqa: T201
        logits, centers = images * classes * 4, classes * width * 4
        measured = {name: _in_a_process(name, title) for name in LOSSES}
        for name, figures in measured.items():
            # each figure beside the centers and their gradient
            beyond = figures["peak"] - centers
            print(f"  {name}: {figures['seconds'] * 1000:.1f} ms a step, peak {beyond / 2**20:.0f} MiB")  # noqa: T201
        ours, theirs = measured["arc_margin_loss"], measured["dense one-hot"]
        allowed = centers + 2.5 * logits
        print(f"  allowed {allowed / 2**20:.0f} MiB; logits {logits / 2**20:.0f} MiB, centers {centers / 2**20:.0f} MiB")  # noqa: T201
        print(f"  time {theirs['seconds'] / ours['seconds']:.2f}x less than dense")  # noqa: T201


def measure(loss: Callable[..., torch.Tensor], images: int, classes: int, width: int) -> dict[str, float]:
    """Seconds of a step (the best of a few) and bytes that the first step took at its peak beyond its inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)

    def inputs(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        embeddings = normalize(torch.randn(images, width, generator=generator), dim=1).to(device)
        centers = torch.randn(count, width, generator=generator).to(device)
        labels = torch.randint(count, (images,), generator=generator).to(device)
        return embeddings.requires_grad_(), centers.requires_grad_(), labels

    def step(embeddings: torch.Tensor, centers: torch.Tensor, labels: torch.Tensor) -> None:
        embeddings.grad = centers.grad = None
        loss(embeddings, centers, labels, SCALE, MARGIN).backward()
        if device == "cuda":
            torch.cuda.synchronize()

    step(*inputs(64))  # what a first step loads
    real = inputs(classes)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = _peak(device)
    step(*real)
    peak = _peak(device) - before
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        step(*real)
        seconds.append(time.perf_counter() - begun)
    return {"seconds": min(seconds), "peak": peak}


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


def _in_a_process(name: str, title: str) -> dict[str, float]:
    """A process of its own, since a peak never falls."""
    command = [sys.executable, "-m", "tests.benchmarks.losses", name, title]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        sys.exit(f"{' '.join(command)} left with {done.returncode}:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(LOSSES[sys.argv[1]], *SIZES[sys.argv[2]])))  # noqa: T201
    else:
        main()
