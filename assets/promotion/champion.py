"""What the champion keeps of its evaluation, and how a later recipe is compared with it. Writing it is `make promote`'s.

Percent and percentage points throughout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from assets.measures import PAIRED, SHOWN
from assets.metrics.bootstrap import PairedDifference
from assets.promotion.comparison import Bootstrap, paired_differences, query_classes, query_families, query_values

KEYS = [measure.key for measure in PAIRED]  # what the columns of a champion's class means are


def class_means(per_query: pa.Table, per_class: pa.Table, test_sha256: str) -> dict[str, Any]:
    """What a champion keeps so that later recipes can be paired with it: the mean of every paired measure over each test class.

    `test_sha256` is the `split_digest` of the images that were measured. The bootstrap draws whole families, so the mean of a class
    serves as well as the values of its queries, and is small enough for git.
    """
    values, classes = query_values(per_query, per_class), query_classes(per_query, per_class)
    means: dict[str, list[float | None]] = {}
    for label in sorted(set(classes)):
        own = values[classes == label]
        known = ~np.isnan(own)
        sums, counts = np.where(known, own, 0.0).sum(axis=0), known.sum(axis=0)
        means[label] = [round(float(total / count), 4) if count else None for total, count in zip(sums, counts, strict=True)]
    return {"test_sha256": test_sha256, "measures": KEYS, "classes": means}


def split_digest(rows: pa.Table) -> str:
    """SHA-256 of the test images in `rows`, their classes and names: two recipes are paired only where all of these are the same."""
    columns = [rows[name].to_pylist() for name in ("id", "label", "class_name", "sha256")]
    return hashlib.sha256("".join("\0".join(row) + "\n" for row in sorted(zip(*columns, strict=True))).encode()).hexdigest()


def paired_with_champion(
    champion: Mapping[str, Any],
    per_query: pa.Table,
    per_class: pa.Table,
    test_sha256: str,
    bootstrap: Bootstrap,
) -> dict[str, PairedDifference] | None:
    """The differences of a recipe's values to the class means that the champion kept; None where it kept none for these test images."""
    kept = champion.get("paired")
    if not kept or kept["measures"] != KEYS or kept["test_sha256"] != test_sha256:
        return None
    values, classes = query_values(per_query, per_class), query_classes(per_query, per_class)
    means = {label: np.array(row, np.float64) for label, row in kept["classes"].items()}
    # values are nan where a measure does not ask a query, so a class's mean counts only for the queries that it asks
    families = query_families(per_query, per_class)
    found = paired_differences(values, np.stack([means[label] for label in classes]), families, bootstrap)
    # the means were rounded, so smaller differences mean nothing
    return {key: PairedDifference(*(round(part, 3) + 0.0 for part in each)) for key, each in found.items()}


def incomparable(kept: Mapping[str, Any], settings: Mapping[str, Any], paired: Collection[str]) -> dict[str, str]:
    """By measure: why its value cannot be compared with the champion's; only measures whose settings have changed since.

    `kept` (the champion's) and `settings` (the recipe's) hold values by name, such as "evaluation.knn_k"; a setting that the champion did
    not keep counts as unchanged. `paired`: the measures whose difference has its own interval, so that the champion's level is not used.
    """
    found = {}
    for measure in SHOWN:
        used = ("precision", *measure.settings, *(() if measure.key in paired else ("confidence",)))
        names = [f"evaluation.{name}" for name in used]
        if changed := [name for name in names if name in kept and kept[name] != settings[name]]:
            found[measure.key] = f"not comparable: {' and '.join(changed)} changed since the champion was measured"
    return found


def says_how_it_was_measured(kept: Mapping[str, Any]) -> bool:
    """Whether `kept` has any setting of the evaluation; older champions kept only those of training."""
    return any(name.startswith("evaluation.") for name in kept)
