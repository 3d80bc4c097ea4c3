"""How far a recipe is from another, with an interval: paired over the same queries where their values are kept, by overlap elsewhere.

Shapes: N images, C classes, M = 5 measures. Differences in percentage points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import stats

from assets.metrics.bootstrap import PairedDifference, bootstrap_means, paired_bootstrap, percentile_interval
from assets.report.measures import FAMILIES, GATED, MEASURES, known_value, value_of

PER_QUERY = {  # measure → column of per_query.parquet
    "image_to_image.map": "average_precision",
    "image_to_image.recall_at_1": "hit_at_1",
    "knn.accuracy": "knn_correct",
    "zero_shot.accuracy": "zero_shot_correct",
}
PER_CLASS = {"text_to_image.recall_at_5": "recall_at_5"}  # and of per_class.parquet
PAIRED = (*PER_QUERY, *PER_CLASS)


class Bootstrap(NamedTuple):
    """How the interval of a difference is drawn."""

    samples: int
    level: float
    seed: int


def query_values(per_query: pa.Table, per_class: pa.Table) -> np.ndarray:
    """float64 [N + C, M], percent: a row a query, its values in the columns of PAIRED; nan where it is no query of a measure."""
    values = np.full((per_query.num_rows + per_class.num_rows, len(PAIRED)), np.nan)
    for column, key in enumerate(PAIRED):
        if key in PER_QUERY:
            values[: per_query.num_rows, column] = _floats(per_query[PER_QUERY[key]])
        else:
            values[per_query.num_rows :, column] = _floats(per_class[PER_CLASS[key]])
    return values


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    values = column.cast(pa.float64()).to_numpy()  # null → nan
    return 100 * values if pa.types.is_boolean(column.type) else values


def query_classes(per_query: pa.Table, per_class: pa.Table) -> np.ndarray:
    """The class of each row of `query_values`, str [N + C]: its images are drawn together, since they are not independent."""
    return np.array([*per_query["label"].to_pylist(), *per_class["label"].to_pylist()])


def paired_differences(values: np.ndarray, reference: np.ndarray, classes: np.ndarray, bootstrap: Bootstrap) -> dict[str, PairedDifference]:
    """The difference of every measure that has values per query [N + C, M], and of their average where all its measures have.

    All from the same resamples of whole classes, so that the average has an interval as well; as wide as so few classes ask for
    (`expanded`). Where they are `too_few`, every interval holds 0.
    """
    count = len(set(classes))
    level = expanded(bootstrap.level, count)
    differences = values - reference
    taken = np.flatnonzero(~np.isnan(differences).all(axis=0))
    if not len(taken):
        return {}
    resampled = bootstrap_means(differences[:, taken], bootstrap.samples, np.random.default_rng([bootstrap.seed, 4]), classes)
    means = np.nanmean(differences[:, taken], axis=0)
    keys = [PAIRED[column] for column in taken]
    found = {key: PairedDifference(float(means[n]), *percentile_interval(resampled[:, n], level)) for n, key in enumerate(keys)}
    if found.keys() >= set(FAMILIES.values()):
        averaged = [keys.index(key) for key in FAMILIES.values()]
        interval = percentile_interval(resampled[:, averaged].mean(axis=1), level)
        found["average"] = PairedDifference(float(means[averaged].mean()), *interval)
    if too_few(count, bootstrap.level):
        return {key: PairedDifference(value, min(low, 0.0), max(high, 0.0)) for key, (value, low, high) in found.items()}
    return found


def expanded(level: float, classes: int) -> float:
    """The level to draw a percentile interval at, so that it holds the share `level` where so few classes are drawn.

    Resamples of n classes vary less than n new ones would. The expanded percentile interval (Hesterberg 2015, arXiv 1411.5279) is as wide
    as a t-interval: for 95 % it is drawn at 97.2 % with 16 classes, at 95.05 % with 763.
    """
    if classes < 2:
        return level
    reach = stats.t.ppf((1 + level) / 2, classes - 1) * math.sqrt(classes / (classes - 1))
    return min(float(2 * stats.norm.cdf(reach) - 1), 1 - 1e-9)


def too_few(classes: int, level: float) -> bool:
    """Whether so few classes rise or fall together by chance more often than 1 − level, as in a sign test: five or fewer for 95 %.

    Resamples of what all lies on one side of 0 never reach the other, so that one class alone would make any difference a certain one.
    """
    return 2.0 ** (1 - classes) > 1 - level


def overlap_difference(row: Mapping[str, Any], reference: Mapping[str, Any], key: str) -> PairedDifference:
    """The difference where only two rows of metrics with intervals of their own are left to compare: wider than a paired one.

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
        key = GATED[family]
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
    taken = [m.key for m in MEASURES if value_of(row, m.key) is not None and value_of(reference, m.key) is not None]
    return {key: paired[key] if key in paired else overlap_difference(row, reference, key) for key in taken}


def group_differences(
    values: np.ndarray, reference: np.ndarray, groups: np.ndarray, classes: np.ndarray, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Each group's means of `reference` and `values` [N], and their difference by whole classes; the largest group first.

    groups [N], "" for none; classes [N]. A group of one class has no spread to judge a difference by: None.
    """
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(sorted(set(groups) - {""})):
        member = groups == group
        after, before, classes_in = values[member], reference[member], classes[member]
        row = {"group": group, "images": len(after), "classes": len(set(classes_in)), "before": float(np.nanmean(before))}
        difference = None
        if row["classes"] > 1:
            generator = np.random.default_rng([bootstrap.seed, 5, number])
            level = expanded(bootstrap.level, row["classes"])
            difference = difference_json(paired_bootstrap(after, before, bootstrap.samples, level, generator, classes_in))
        rows.append(row | {"after": float(np.nanmean(after)), "difference": difference})
    return sorted(rows, key=lambda row: (-row["images"], row["group"]))


def outcome(difference: PairedDifference) -> str:
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "tie"


def difference_json(difference: PairedDifference) -> dict[str, Any]:
    value, low, high = (round(part, 4) for part in difference)
    return {"difference": value, "interval": [low, high], "outcome": outcome(difference)}
