"""Is a run in trouble? Watches losses, gradients and validation measures; answers with a sentence, or None. The loop stops the run.

The most common trouble in tuning a CLIP is a learning rate so high that the embeddings collapse while the loss still looks like a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from assets.metrics.health import drift
from assets.params import Guards

ROUNDING = 1e-5  # a smaller spread at the start is rounding error, and is not watched
FIRST = 3  # steps whose smallest value stands for the start: with a broken learning rate the second step is lost already
WINDOW = 10  # steps whose median is watched: a single hard batch must not stop a run
ROOM = 1.0  # nats that a loss may rise in any case: a loss near 0 doubles easily
STANDARD_ERRORS = 3.0  # a search of few queries falls by chance
SEARCHES = {"image_to_image": "image→image", "text_to_image": "text→image"}  # measures of validation, mAP

Measures = Mapping[str, float | None]


def spread(embeddings: np.ndarray) -> float | None:
    """1 − the mean cosine of two embeddings [N, d] of unit norm, drawn with replacement: 0 when all are one; None for N < 2."""
    return max(0.0, 1 - float(np.square(embeddings.astype(np.float64).mean(axis=0)).sum())) if len(embeddings) > 1 else None


def health(embeddings: np.ndarray, start: np.ndarray) -> dict[str, float | None]:
    """The measures of validation embeddings [N, d] that are watched, `start` [N, d] being what they were before training."""
    return {"spread": spread(embeddings), "cosine_to_start": drift(start, embeddings) if len(embeddings) else None}


def comparable(first: Mapping[str, float]) -> dict[str, float]:
    """Of the least `loss` and gradient `norm` of the run's first steps, those that later ones can be compared with.

    A loss that starts near 0 has next to no gradient: with few classes, which the start tells apart already, one hard picture's is
    hundreds of times that. Below ROOM the loss alone is watched, which has ROOM to rise.
    """
    return {name: value for name, value in first.items() if name == "loss" or first.get("loss", 0.0) >= ROOM}


def trouble_in_steps(what: str, values: Sequence[torch.Tensor], first: float | None, allowed: float | None, floor: float) -> str | None:
    """Whether the median of the last WINDOW values is above `floor` and `allowed` times `first`, the smallest of the run's FIRST.

    `values`: scalars of the epoch under way, the newest last; `first`: None until it is known.
    """
    if allowed is None or first is None or len(values) < WINDOW:
        return None
    recent = typical(values[-WINDOW:])
    if recent <= max(allowed * first, floor):
        return None
    return f"the {what} has risen to {recent:.3g}, {recent / max(first, 1e-12):.3g} times the {first:.3g} of the first steps"


def standard_errors(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By measure, the standard error of the mean of values [Q] in [0, 1], one per query.

    Two 0s and two 1s are put to the values: a handful of queries that all succeed is not certain to succeed again.
    """
    return {name: float(np.std([*each, 0.0, 0.0, 1.0, 1.0])) / math.sqrt(max(1, len(each))) for name, each in values.items()}


def trouble_in_measures(measures: Measures, start: Measures, noise: Mapping[str, float], guards: Guards) -> str | None:
    """Whether validation shows that the model has lost what it had at the `start`. Measures that are missing or None are not watched.

    spread, cosine_to_start: of the validation embeddings. image_to_image, text_to_image: mAP, which must fall by more than
    STANDARD_ERRORS times its `noise`, the standard error at the start, beyond what is allowed, so that a handful of queries stops no
    run. Drift alone stops no run: batch norms whose statistics a short training of the base left halfway turn the embeddings of the same
    weights away from the start, and a model that searches as well as before has lost nothing by it.
    """

    def both(name: str) -> tuple[float, float] | None:
        now, then = measures.get(name), start.get(name)
        return None if now is None or then is None else (now, then)

    def fallen(name: str, allowed: float) -> str | None:
        """How far the search has fallen below `allowed` times what it was, in words."""
        pair = both(name)
        if pair is None or pair[0] >= allowed * pair[1] - STANDARD_ERRORS * noise.get(name, 0.0):
            return None
        return f"{SEARCHES[name]} search is being lost: validation mAP is {pair[0]:.3f}, at the start it was {pair[1]:.3f}"

    pair = both("spread")
    if guards.min_spread is not None and pair and pair[1] > ROUNDING and pair[0] < guards.min_spread * pair[1]:
        return (
            f"the validation embeddings have collapsed: their spread is {pair[0]:.3g}, at the start it was {pair[1]:.3g}"
            f" (guards.min_spread: {guards.min_spread})"
        )
    cosine = measures.get("cosine_to_start")
    if guards.min_cosine_to_start is not None and cosine is not None and cosine < guards.min_cosine_to_start:
        lost = next(filter(None, (fallen(name, 1.0) for name in SEARCHES)), None)
        if lost:
            return (
                f"the model has drifted from where it started: the mean cosine between the validation embeddings of both is {cosine:.3f}"
                f" (guards.min_cosine_to_start: {guards.min_cosine_to_start}), and {lost}"
            )
    if guards.min_text_to_image is not None and (lost := fallen("text_to_image", guards.min_text_to_image)):
        return f"{lost} (guards.min_text_to_image: {guards.min_text_to_image})"
    return None


def trouble_in_logit_scale(scale: float, start: float, allowed: float | None) -> str | None:
    """Whether the logit scale (as multiplied, e^t) has left [start / allowed, start · allowed]."""
    if allowed is None or 1 / allowed <= scale / start <= allowed:
        return None
    return f"the logit scale has gone from {start:.3g} to {scale:.3g} (guards.max_logit_scale_change: {allowed})"


def typical(values: Sequence[torch.Tensor]) -> float:
    """The median of scalars."""
    return float(torch.stack([value.float() for value in values]).median())
