"""Training the demo's image tower with and without training/depthwise.py: `python -m tests.benchmarks.depthwise`.

Prints the median time of forward and backward of one batch, the two ways in turn on the same pictures, and their ratio; it is that of one
machine's oneDNN. Asserts nothing; wants an idle machine.
"""

from __future__ import annotations

from assets import machine

machine.tune_for_torch()  # before torch loads

# ruff: noqa: E402
import argparse
import copy
import statistics
import time

import timm
import torch

from assets.training.depthwise import quicken_depthwise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    asked = parser.parse_args()
    plain = timm.create_model("efficientnet_lite0", num_classes=0).train().to(memory_format=torch.channels_last)
    quick = copy.deepcopy(plain)
    quicken_depthwise(quick)
    pictures = torch.randn(asked.batch_size, 3, asked.image_size, asked.image_size).contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {"plain": [], "quick": []}
    for _ in range(asked.repeats + 1):
        for name, tower in (("plain", plain), ("quick", quick)):
            begun = time.perf_counter()
            tower(pictures).square().sum().backward()
            seconds[name].append(time.perf_counter() - begun)
    middle = {name: statistics.median(each[1:]) for name, each in seconds.items()}  # the first is a warm-up
    print(  # noqa: T201
        f"{asked.batch_size} pictures of {asked.image_size} px, {torch.get_num_threads()} threads: {middle['plain']:.3f} s plain,"
        f" {middle['quick']:.3f} s quick, {middle['plain'] / middle['quick']:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
