"""The learning rate over a run, and which parameters decay. Layer-wise decay: tests/clip/test_trainable.py."""

from itertools import pairwise

import pytest
import torch

from assets.training.optimizer import decay_groups, learning_rate_factor


def test_learning_rate_warms_up_and_ends_at_its_fraction():
    factors = [learning_rate_factor(step, 50, warmup_fraction=0.2, final_lr_fraction=0.1) for step in range(50)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(factors) == factors[9] == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(factors[9:]))


def test_norms_and_biases_do_not_decay():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    module[0].weight.requires_grad_(False)
    decay, free = decay_groups(dict(module.named_parameters()), 0.1, 0.01)
    assert decay["params"] == []
    assert [p.ndim for p in free["params"]] == [1, 1, 1]
    assert (decay["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
