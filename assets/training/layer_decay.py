"""Optimiser groups of a tower whose layers learn at different rates. Which layers there are is the tower's concern."""

from __future__ import annotations

from typing import Any

import torch

from assets.training.loop import decay_groups


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
