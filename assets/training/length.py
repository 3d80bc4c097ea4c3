"""How long a training is, and how large its batches are, for as many pictures as there are.

Few pictures make few steps an epoch: a small folder needs more epochs than a large one to learn as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from assets.params import Optimization

SMALLEST_BATCH = 8  # pictures; also what smaller batches are a multiple of, so that processes can share them


@dataclass(frozen=True)
class Length:
    batch_size: int
    steps: int  # of the optimiser, in the whole run
    epochs: int
    epochs_per_round: int  # between two validations


def length(settings: Optimization, pictures: int) -> Length:
    """The length of a training on that many pictures, as every training stage takes it."""
    size = fitting_batch(settings, pictures)
    batches = batches_per_epoch(pictures, size)
    passes = epochs(settings, batches)
    return Length(size, passes * steps_per_epoch(settings, batches), passes, epochs_per_round(settings, passes))


def fitting_batch(settings: Optimization, pictures: int) -> int:
    """`settings.batch_size`, but at most `max_batch_share` of the pictures: one batch must not be all that there is."""
    share = int(settings.max_batch_share * pictures) // SMALLEST_BATCH * SMALLEST_BATCH
    return min(settings.batch_size, max(SMALLEST_BATCH, share))


def batches_per_epoch(pictures: int, batch_size: int) -> int:
    return max(1, pictures // batch_size)


def steps_per_epoch(settings: Optimization, batches: int) -> int:
    return math.ceil(batches / settings.accumulate)


def epochs(settings: Optimization, batches: int) -> int:
    """Passes over the pictures: at least `settings.epochs`, and as many as `settings.steps` need at so many batches an epoch."""
    return max(settings.epochs, math.ceil(settings.steps / steps_per_epoch(settings, batches)))


def epochs_per_round(settings: Optimization, passes: int) -> int:
    """Passes between two validations, so that there are at most `settings.validations` of them."""
    return math.ceil(passes / settings.validations)
