"""Random numbers that depend on where in a run they are drawn, not on what was drawn before: any step can be done again alone."""

from __future__ import annotations

import numpy as np
import torch


def generator_for(*place: int) -> torch.Generator:
    """A generator on the CPU seeded by `place`, such as (seed, epoch) or (seed, epoch, step); different places are independent."""
    # with its length before it, a place differs from the same one with a 0 after it: numpy fills up seeds with zeros
    seed = np.random.SeedSequence((len(place), *place)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) >> 1)  # torch takes a signed number
