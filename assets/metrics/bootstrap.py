"""How sure a mean is, and a difference of two: percentile bootstrap (Efron & Tibshirani 1993, ch. 13), by value or by cluster.

Shapes: N values (queries), M measures, S samples, U units that are drawn (values or clusters).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SAMPLE_ITEMS = 2**22  # drawn indices held at once


class PairedDifference(NamedTuple):
    """A difference of two means with its interval; an interval that holds 0 makes it a tie."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: np.ndarray, samples: int, level: float, generator: np.random.Generator, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """(low, high): the percentile interval of the mean of `values` [N] that holds the share `level`, from `samples` resamples.

    Values that are nan are skipped. With `groups` [N], of any sortable kind, whole groups are drawn with replacement and the mean is
    taken over all their values: for values that are not independent within a group, such as the images of a class. A single unit
    (one value, one group) has no spread: the interval is its mean.
    """
    means = bootstrap_means(np.asarray(values, np.float64)[:, None], samples, generator, groups)
    return percentile_interval(means[:, 0], level)


def paired_bootstrap(
    values: np.ndarray,
    reference: np.ndarray,
    samples: int,
    level: float,
    generator: np.random.Generator,
    groups: np.ndarray | None = None,
) -> PairedDifference:
    """mean(values − reference) with its interval: both [N] measured on the same queries, which are drawn together.

    Pairs of which either value is nan are skipped; positive means that `values` are higher. Other arguments as of `bootstrap_interval`.
    """
    values, reference = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if values.shape != reference.shape:
        raise ValueError(f"values and reference must pair up, given {list(values.shape)} and {list(reference.shape)}")
    differences = values - reference
    low, high = bootstrap_interval(differences, samples, level, generator, groups)
    return PairedDifference(float(np.nanmean(differences)), low, high)


def too_few(units: int, level: float) -> bool:
    """Whether this many units all rise, or all fall, by chance more often than 1 − level, as in a sign test: five or fewer for 95 %.

    Where all lie on one side of 0, no resample reaches the other side: a single one would make any difference look certain.
    """
    return 2.0 ** (1 - units) > 1 - level


def bootstrap_means(values: np.ndarray, samples: int, generator: np.random.Generator, groups: np.ndarray | None = None) -> np.ndarray:
    """The means of M measures in each resample, float64 [S, M], all measures from the same draws: so a function of several is bounded too.

    values [N, M] with nan where a row has no value of a measure; groups [N] as in `bootstrap_interval`. A resample that drew no value
    of a measure has nan there. ValueError for a measure without any value.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or samples < 1:
        raise ValueError(f"values must be [N, M] and samples at least 1, given shape {list(values.shape)} and {samples}")
    known = ~np.isnan(values)
    if not known.any(axis=0).all():
        raise ValueError("there is no value to resample")
    unit = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if unit.shape != (len(values),):
        raise ValueError(f"groups must be [{len(values)}], given shape {list(unit.shape)}")
    # rows without any value are no units of their own
    unit = np.unique(unit[known.any(axis=1)], return_inverse=True)[1]
    values, known = values[known.any(axis=1)], known[known.any(axis=1)]
    units, measures = int(unit.max()) + 1, values.shape[1]
    sums, counts = np.zeros((units, measures)), np.zeros((units, measures))
    np.add.at(sums, unit, np.where(known, values, 0.0))
    np.add.at(counts, unit, known)

    means = np.empty((samples, measures))
    rows = max(1, SAMPLE_ITEMS // units)
    for start in range(0, samples, rows):
        stop = min(start + rows, samples)
        drawn = generator.integers(units, size=(stop - start, units))
        drawn += np.arange(stop - start)[:, None] * units
        times = np.bincount(drawn.ravel(), minlength=(stop - start) * units).reshape(stop - start, units).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means[start:stop] = (times @ sums) / (times @ counts)
    return means


def percentile_interval(resampled: np.ndarray, level: float) -> tuple[float, float]:
    """(low, high) of a resampled statistic [S]: its quantiles (1 ∓ level) / 2, interpolated linearly; nan samples are skipped."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, given {level}")
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
