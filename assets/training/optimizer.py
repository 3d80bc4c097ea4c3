"""AdamW, and Adam for sparse gradients: parameter groups, the learning rate over a run."""

from __future__ import annotations

import math
from typing import Any

import torch


def optimizers(groups: list[dict[str, Any]], sparse_groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
    """AdamW for `groups`; for `sparse_groups`, whose gradients are sparse, Adam without decay, which changes rows with a gradient alone."""
    # fused: one pass over weights, gradients and moments, where torch's default takes ten on a CPU
    dense = torch.optim.AdamW(groups, fused=True)
    return [dense, torch.optim.SparseAdam(sparse_groups)] if sparse_groups else [dense]


def decay_groups(parameters: dict[str, torch.nn.Parameter], learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two AdamW groups: matrices and filters decay, norms and biases (one dimension or none) do not."""
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    return [
        {"params": [p for p in trained.values() if p.ndim > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [p for p in trained.values() if p.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
    ]


def layer_decay_groups(
    parameters: dict[str, torch.nn.Parameter], shares: dict[str, float], learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW groups for `parameters`, each at its share of the learning rate, those at the highest share first; by name."""
    return [
        group
        for share in sorted({shares[name] for name in parameters}, reverse=True)
        for group in decay_groups(
            {name: parameter for name, parameter in parameters.items() if shares[name] == share}, share * learning_rate, weight_decay
        )
    ]


def learning_rate_factor(step: int, total_steps: int, *, warmup_fraction: float, final_lr_fraction: float) -> float:
    """Linear warm-up from near 0 to 1, then a cosine to `final_lr_fraction` at the last step."""
    warmup = round(warmup_fraction * total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total_steps - 1 - warmup))
    return final_lr_fraction + (1 - final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2
