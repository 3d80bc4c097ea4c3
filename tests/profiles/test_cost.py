"""What a training costs, against hand-computed values."""

from __future__ import annotations

import torch

from assets.profiles.cost import training_cost


def test_costs_by_hand():
    """One layer of 8 to 4 that is locked, one of 4 to 2 that trains, for 3 inputs of which 6 make a step."""
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        pixels = torch.zeros(3, 8)
    model[0].requires_grad_(False)

    def cost(**changes):
        options = {"batch_size": 6, "inputs": 3, "half": False, "checkpointing": False, "ema": False}
        return training_cost(model, lambda: model(pixels), **options | changes)

    assert (cost().trained, cost().locked) == (4 * 2 + 2, 8 * 4 + 4)
    assert cost().state_bytes == 4 * (36 + 10) + 10 * 4 + 10 * 8
    assert cost(ema=True).state_bytes == cost().state_bytes + 10 * 4
    assert cost().activation_bytes == 6 * 4 * 4  # what the second layer took in
    assert cost(half=True).activation_bytes == 6 * 4 * 2
    forward, backward = 2 * 6 * (8 * 4 + 4 * 2), 2 * 6 * 4 * 2  # of the second layer's weight
    assert cost().step_flops == forward + backward
