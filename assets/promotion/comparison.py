"""How far one recipe is from another, with an interval: paired over the same queries where their values are kept, else by overlap.

What follows from a difference is gate.py's. Shapes: N images, C classes, M measures in PAIRED. Differences in percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import stats

from assets.measures import AVERAGE, AVERAGED, GATED, PAIRED, SHOWN, known_value, value_of
from assets.metrics.bootstrap import PairedDifference, bootstrap_means, paired_bootstrap, percentile_interval, too_few


class Bootstrap(NamedTuple):
    """How the interval of a difference is drawn."""

    samples: int
    level: float
    seed: int


def query_values(per_query: pa.Table, per_class: pa.Table) -> np.ndarray:
    """float64 [N + C, M], percent: one row per query, first images, then classes; nan where a measure does not ask this query."""
    values = np.full((per_query.num_rows + per_class.num_rows, len(PAIRED)), np.nan)
    for number, measure in enumerate(PAIRED):
        if measure.unit == "image":
            values[: per_query.num_rows, number] = _floats(per_query[measure.column])
        else:
            values[per_query.num_rows :, number] = _floats(per_class[measure.column])
    return values


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    values = column.cast(pa.float64()).to_numpy()  # null → nan
    return 100 * values if pa.types.is_boolean(column.type) else values


def query_classes(per_query: pa.Table, per_class: pa.Table) -> np.ndarray:
    """The class of each row of `query_values`, str [N + C]."""
    return np.array([*per_query["label"].to_pylist(), *per_class["label"].to_pylist()])


def query_families(per_query: pa.Table, per_class: pa.Table) -> np.ndarray:
    """The family of each row of `query_values`, str [N + C]: what is drawn together, since images of a class, and classes that show nearly
    the same, are not independent.
    """
    return np.array([*per_query["family"].to_pylist(), *per_class["family"].to_pylist()])


def query_siblings(per_query: pa.Table, per_class: pa.Table) -> np.ndarray:
    """bool [N + C]: whether the class of each row of `query_values` is a sibling of what was trained on."""
    return np.array([*per_query["sibling"].to_pylist(), *per_class["sibling"].to_pylist()], bool)


def paired_differences(
    values: np.ndarray, reference: np.ndarray, families: np.ndarray, bootstrap: Bootstrap
) -> dict[str, PairedDifference]:
    """The difference of every measure that has values [N + C, M], and of the average where all its measures have values.

    All come from the same resamples of whole families, so that the average has an interval as well. Intervals are widened as the number
    of families asks for (`expanded`). Where the families are `too_few`, every interval holds 0.
    """
    count = len(set(families))
    level = expanded(bootstrap.level, count)
    differences = values - reference
    taken = np.flatnonzero(~np.isnan(differences).all(axis=0))
    if not len(taken):
        return {}
    resampled = bootstrap_means(differences[:, taken], bootstrap.samples, np.random.default_rng([bootstrap.seed, 4]), families)
    means = np.nanmean(differences[:, taken], axis=0)
    keys = [PAIRED[column].key for column in taken]
    found = {key: PairedDifference(float(means[n]), *percentile_interval(resampled[:, n], level)) for n, key in enumerate(keys)}
    if found.keys() >= set(AVERAGED):
        averaged = [keys.index(key) for key in AVERAGED]
        interval = percentile_interval(resampled[:, averaged].mean(axis=1), level)
        found[AVERAGE.key] = PairedDifference(float(means[averaged].mean()), *interval)
    if too_few(count, bootstrap.level):
        return {key: PairedDifference(value, min(low, 0.0), max(high, 0.0)) for key, (value, low, high) in found.items()}
    return found


def expanded(level: float, families: int) -> float:
    """The level to draw a percentile interval at, so that it holds the share `level` however few families there are.

    Resamples of n families vary less than n new families would. The expanded percentile interval (Hesterberg 2015, arXiv 1411.5279) is
    as wide as a t-interval: for 95 % it is drawn at 97.2 % with 16 families, at 95.05 % with 763.
    """
    if families < 2:
        return level
    reach = stats.t.ppf((1 + level) / 2, families - 1) * math.sqrt(families / (families - 1))
    return min(float(2 * stats.norm.cdf(reach) - 1), 1 - 1e-9)


def overlap_difference(row: Mapping[str, Any], reference: Mapping[str, Any], key: str) -> PairedDifference:
    """The difference of two rows of which only their own intervals are known: wider than a paired one.

    Its interval holds 0 exactly when the two rows' intervals overlap.
    """
    (low, high), (reference_low, reference_high) = row["confidence"][key], reference["confidence"][key]
    return PairedDifference(known_value(row, key) - known_value(reference, key), low - reference_high, high - reference_low)


def gated_differences(
    row: Mapping[str, Any], reference: Mapping[str, Any], paired: Mapping[str, PairedDifference], families: Iterable[str]
) -> dict[str, PairedDifference | None]:
    """By family: the paired difference where there is one, else by overlap; None where a value or its interval is missing."""
    found: dict[str, PairedDifference | None] = {}
    for family in families:
        key = GATED[family].key
        known = all(value_of(each, key) is not None for each in (row, reference))
        bounded = all((each.get("confidence") or {}).get(key) for each in (row, reference))
        if known and key in paired:
            found[family] = paired[key]
        else:
            found[family] = overlap_difference(row, reference, key) if known and bounded else None
    return found


def all_differences(
    row: Mapping[str, Any], reference: Mapping[str, Any], paired: Mapping[str, PairedDifference]
) -> dict[str, PairedDifference]:
    """One difference for every measure that both rows have: the paired one where there is one."""
    taken = [each.key for each in SHOWN if value_of(row, each.key) is not None and value_of(reference, each.key) is not None]
    return {key: paired[key] if key in paired else overlap_difference(row, reference, key) for key in taken}


def group_differences(
    values: np.ndarray, reference: np.ndarray, groups: np.ndarray, classes: np.ndarray, families: np.ndarray, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Each group's mean of `reference` (before) and `values` (after) [N], and their difference by whole families; largest group first.

    groups [N], "" for none; classes and families [N]. A mean is None where no image of the group has another to find. A group of one
    family has no spread to judge a difference by, so its difference is None.
    """
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(sorted(set(groups) - {""})):
        member = groups == group
        after, before, drawn = values[member], reference[member], families[member]
        count = len(set(drawn))
        row = {
            "group": str(group),
            "images": len(after),
            "classes": len(set(classes[member])),
            "before": _mean(before),
            "after": _mean(after),
        }
        difference = None
        if count > 1 and row["before"] is not None:
            generator = np.random.default_rng([bootstrap.seed, 5, number])
            level = expanded(bootstrap.level, count)
            difference = difference_json(paired_bootstrap(after, before, bootstrap.samples, level, generator, drawn))
        rows.append(row | {"difference": difference})
    return sorted(rows, key=lambda row: (-row["images"], row["group"]))


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return round(float(np.mean(known)), 4) if len(known) else None


def outcome(difference: PairedDifference) -> str:
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "tie"


def difference_json(difference: PairedDifference) -> dict[str, Any]:
    value, low, high = (round(part, 4) for part in difference)
    return {"difference": value, "interval": [low, high], "outcome": outcome(difference)}
