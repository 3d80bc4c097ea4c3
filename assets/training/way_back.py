"""The way back: between a tuned model's weights and those that it started with may lie a better model than either (WiSE-FT, 2109.01903).

What tuning learns about a few classes pulls a model away from what it knew about all others; part of the way often has both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from assets.clip.model import WEIGHTS, Clip
from assets.training.distributed import from_first
from assets.training.selection import Kept

Validate = Callable[[], dict[str, Any]]


def go_back(model: Clip, start: Path, kept: Kept, shares: Sequence[float], validate: Validate, select_by: str) -> Kept:
    """Leave in `model`, which has the `kept` weights, the best of these and of the points of the way at `shares`; says which.

    `start`: the model directory where the way begins. A share of 0.25 is a quarter of what training changed, batch-norm statistics
    included. Of equal points the one nearest to the tuned weights is taken. Nothing is tried where validation has not chosen, or has
    chosen the start. In several processes the first one validates, and all end with the same weights.
    """
    if not kept.chosen or kept.epoch == 0 or not shares:
        return kept
    way = _Way(model, start)
    tried = []
    for share in shares:
        way.go_to(share)
        measures = from_first(validate)
        tried.append({"share": share, **{f"validation_{name}": value for name, value in measures.items()}})
    measure = f"validation_{select_by}"
    best = max([*tried, {"share": 1.0, **kept.measures}], key=lambda point: (point[measure], point["share"]))
    way.go_to(best["share"])
    kept = replace(kept, way_back=tried)
    if best["share"] == 1:
        return kept
    why = f"the best by validation {select_by}: {best[measure]:.3f}, at its end {kept.measures[measure]:.3f}"
    return replace(kept, share=best["share"], why=why, measures={name: value for name, value in best.items() if name != "share"})


class _Way:
    """The weights that differ between a model and its start, at both ends."""

    def __init__(self, model: Clip, start: Path) -> None:
        self.state = model.state_dict()
        begin = load_file(start / WEIGHTS)
        self.ends = {
            name: (begin[name].to(end.device), end.clone())
            for name, end in self.state.items()
            if end.is_floating_point() and not torch.equal(begin[name].to(end.device), end)
        }

    def go_to(self, share: float) -> None:
        with torch.no_grad():
            for name, (begin, end) in self.ends.items():
                self.state[name].copy_(end if share == 1 else torch.lerp(begin.float(), end.float(), share))
