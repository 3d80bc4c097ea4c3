"""Intervals against slow resampling, against known coverage, and in their edge cases."""

import numpy as np
import pytest

from assets.metrics import bootstrap
from assets.metrics.bootstrap import bootstrap_interval, bootstrap_means, paired_bootstrap, percentile_interval


def rng(seed=0):
    return np.random.default_rng(seed)


def test_interval_of_coin_tosses():
    # The resampled mean of n tosses with share p is Binomial(n, p)/n: here sd = sqrt(0.3·0.7/1000) = 0.01449, 95 % = 0.3 ± 0.0284.
    low, high = bootstrap_interval(np.repeat([1.0, 0.0], [300, 700]), 4000, 0.95, rng())
    assert (low, high) == pytest.approx((0.3 - 0.0284, 0.3 + 0.0284), abs=0.002)


def test_coverage():
    generator = rng(1)
    trials = 400
    covered = 0
    for _ in range(trials):
        low, high = bootstrap_interval(generator.exponential(size=100), 300, 0.9, generator)
        covered += low <= 1 <= high
    assert covered / trials == pytest.approx(0.9, abs=0.05)  # three standard errors and the known shortfall of percentiles


def test_groups_are_drawn_whole():
    # Ten groups of 50 equal values hold ten observations, not 500: the interval is that of the ten.
    means = rng(2).standard_normal(10)
    values, groups = np.repeat(means, 50), np.repeat(np.array([f"class {n}" for n in range(10)]), 50)
    assert bootstrap_interval(values, 500, 0.95, rng(), groups) == pytest.approx(bootstrap_interval(means, 500, 0.95, rng()), abs=1e-12)
    low, high = bootstrap_interval(values, 500, 0.95, rng(), groups)
    naive_low, naive_high = bootstrap_interval(values, 500, 0.95, rng())
    assert high - low > 4 * (naive_high - naive_low)


def test_equals_slow_resampling_with_groups_of_any_size_and_missing_values():
    generator = rng(3)
    values = generator.random((40, 3))
    values[generator.random((40, 3)) < 0.3] = np.nan
    values[5] = np.nan
    groups = np.concatenate([generator.integers(6, size=39), [99]])
    drawn = rng(4).integers(7, size=(20, 7))
    names = np.unique(groups)
    expected = [np.nanmean(np.concatenate([values[groups == names[n]] for n in row]), axis=0) for row in drawn]
    np.testing.assert_allclose(bootstrap_means(values, 20, rng(4), groups), expected, atol=1e-12)


def test_measures_share_their_draws():
    value = rng(5).random(30)
    means = bootstrap_means(np.stack([value, 1 - value], axis=1), 50, rng())
    np.testing.assert_allclose(means.sum(axis=1), 1, atol=1e-12)
    assert means[:, 0].std() > 0


def test_the_seed_decides(monkeypatch):
    values = rng(6).random(50)
    first = bootstrap_interval(values, 200, 0.95, rng(7))
    assert first == bootstrap_interval(values, 200, 0.95, rng(7)) != bootstrap_interval(values, 200, 0.95, rng(8))
    monkeypatch.setattr(bootstrap, "SAMPLE_ITEMS", 100)  # two samples at a time
    assert first == pytest.approx(bootstrap_interval(values, 200, 0.95, rng(7)), abs=1e-12)


def test_level_orders_intervals():
    values = rng(9).random(50)
    (low_50, high_50), (low_99, high_99) = (bootstrap_interval(values, 500, level, rng()) for level in (0.5, 0.99))
    assert low_99 < low_50 < values.mean() < high_50 < high_99


def test_percentiles():
    assert percentile_interval(np.append(np.arange(101.0), np.nan), 0.9) == pytest.approx((5, 95), abs=1e-9)


def test_what_has_no_spread():
    assert bootstrap_interval(np.array([0.4]), 100, 0.95, rng()) == (0.4, 0.4)
    assert bootstrap_interval(np.array([0.0, 1.0, np.nan]), 100, 0.95, rng(), np.array([1, 1, 2])) == (0.5, 0.5)


def test_paired_difference():
    generator = rng(10)
    base = generator.random(300)
    better = base + 0.02 + 0.01 * generator.standard_normal(300)
    difference = paired_bootstrap(better, base, 1000, 0.95, rng())
    assert difference.value == pytest.approx(np.mean(better - base), abs=1e-12)
    assert difference.low < difference.value < difference.high
    assert difference.low > 0.015
    mirrored = paired_bootstrap(base, better, 1000, 0.95, rng())
    assert mirrored == pytest.approx((-difference.value, -difference.high, -difference.low), abs=1e-12)
    # each on its own the two overlap: pairing is what tells them apart
    assert bootstrap_interval(base, 1000, 0.95, rng())[1] > bootstrap_interval(better, 1000, 0.95, rng())[0]


def test_paired_equals_tie_and_missing_pairs_are_skipped():
    values = np.array([0.1, 0.7, np.nan, 0.3])
    assert paired_bootstrap(values, values, 100, 0.95, rng()) == (0, 0, 0)
    other = np.array([0.0, np.nan, 0.5, 0.2])
    assert paired_bootstrap(values, other, 100, 0.95, rng()) == pytest.approx((0.1, 0.1, 0.1), abs=1e-12)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="no value to resample"):
        bootstrap_interval(np.full(3, np.nan), 100, 0.95, rng())
    with pytest.raises(ValueError, match="no value to resample"):
        bootstrap_interval(np.zeros(0), 100, 0.95, rng())
    with pytest.raises(ValueError, match=r"must pair up, given \[2\] and \[3\]"):
        paired_bootstrap(np.zeros(2), np.zeros(3), 100, 0.95, rng())
    with pytest.raises(ValueError, match=r"groups must be \[2\], given shape \[3\]"):
        bootstrap_interval(np.zeros(2), 100, 0.95, rng(), np.zeros(3))
    with pytest.raises(ValueError, match="level must be between 0 and 1, given 95"):
        bootstrap_interval(np.zeros(2), 100, 95, rng())
    with pytest.raises(ValueError, match="samples at least 1"):
        bootstrap_interval(np.zeros(2), 0, 0.95, rng())
