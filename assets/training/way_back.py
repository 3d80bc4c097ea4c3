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
from assets.training.selection import Kept, measures_of, start_is_best

Validate = Callable[[], dict[str, Any]]


def go_back(
    model: Clip, start: Path, kept: Kept, at_start: dict[str, Any], shares: Sequence[float], validate: Validate, select_by: str
) -> Kept:
    """Leave in `model`, which has the `kept` weights, the best point of the way from its start to these; says which.

    The points are both ends and those at `shares`: 0.25 is a quarter of what training changed, batch-norm statistics included. `start`:
    the model directory where the way begins; `at_start`: the history's row of it. The way is gone also where training has only made the
    model worse: a part of it may be better than nothing. Of equal points the one with more training is taken. Where validation cannot
    choose, the start is left: what it knows is sure, what training made of it is not. In several processes the first one validates, and
    all end with the same weights.
    """
    way, measure = _Way(model, start), f"validation_{select_by}"
    if not kept.chosen:
        way.go_to(0)
        return replace(kept, epoch=0, why=kept.why.replace("the last", "the start", 1), measures=measures_of(at_start))
    tried = []
    for share in shares:
        way.go_to(share)
        measures = from_first(validate)
        tried.append({"share": share, "epoch": kept.epoch, **{f"validation_{name}": value for name, value in measures.items()}})
    points = [{"share": 0.0, **measures_of(at_start)}, *tried, {"share": 1.0, **kept.measures}]
    best = max(points, key=lambda point: (point[measure], point["share"]))
    way.go_to(best["share"])
    kept = replace(kept, way_back=tried)
    if best["share"] == 1:
        return kept
    if best["share"] == 0:
        why = start_is_best(select_by, best[measure])
        return replace(kept, epoch=0, why=why, best_is_last=False, measures=measures_of(best))
    at_ends = f"at its end {kept.measures[measure]:.3f}, at the start {at_start[measure]:.3f}"
    why = f"the best by validation {select_by}: {best[measure]:.3f}, {at_ends}"
    return replace(kept, share=best["share"], why=why, measures=measures_of(best))


def go_to(model: Clip, start: Path, kept: Kept, share: float, validate: Validate) -> Kept:
    """Leave in `model`, which has the `kept` weights, that share of what training changed; validation measures it and chooses nothing."""
    _Way(model, start).go_to(share)
    return replace(kept, share=share, measures={f"validation_{name}": value for name, value in from_first(validate).items()})


class _Way:
    """What differs between a model and its start, at both ends."""

    def __init__(self, model: Clip, start: Path) -> None:
        self.state = model.state_dict()
        begin = load_file(start / WEIGHTS)
        self.ends = {
            name: (begin[name].to(end.device), end.clone())
            for name, end in self.state.items()
            if not torch.equal(begin[name].to(end.device), end)
        }

    def go_to(self, share: float) -> None:
        with torch.no_grad():
            for name, (begin, end) in self.ends.items():
                if share in (0, 1) or not end.is_floating_point():  # bit for bit; a count of batches has nothing between
                    self.state[name].copy_(end if share else begin)
                else:
                    self.state[name].copy_(torch.lerp(begin.float(), end.float(), share))
