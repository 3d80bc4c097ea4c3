"""What a champion keeps of its evaluation, and what of it a later recipe can be compared with. Writing it is `make promote`'s.

Percent and percentage points throughout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from assets.metrics.bootstrap import PairedDifference
from assets.report.comparison import PAIRED, Bootstrap, paired_differences, query_classes, query_values
from assets.report.measures import MEASURES


def class_means(per_query: pa.Table, per_class: pa.Table, test_sha256: str) -> dict[str, Any]:
    """What a champion keeps so that later recipes can be paired with it: the mean of every paired measure in each test class, in percent.

    `test_sha256` is the `split_digest` of the images that were measured. Whole classes are drawn, so a class's mean serves as well as
    its queries' values, and is small enough for git.
    """
    values, classes = query_values(per_query, per_class), query_classes(per_query, per_class)
    means: dict[str, list[float | None]] = {}
    for label in sorted(set(classes)):
        own = values[classes == label]
        known = ~np.isnan(own)
        sums, counts = np.where(known, own, 0.0).sum(axis=0), known.sum(axis=0)
        means[label] = [round(float(total / count), 4) if count else None for total, count in zip(sums, counts, strict=True)]
    return {"test_sha256": test_sha256, "measures": list(PAIRED), "classes": means}


def split_digest(rows: pa.Table) -> str:
    """Of the test images in `rows` of the curated table, with their classes and the names that are searched for: means of other images
    are of other queries."""
    columns = [rows[name].to_pylist() for name in ("id", "label", "class_name", "sha256")]
    return hashlib.sha256("".join("\0".join(row) + "\n" for row in sorted(zip(*columns, strict=True))).encode()).hexdigest()


def paired_with_champion(
    champion: Mapping[str, Any],
    per_query: pa.Table,
    per_class: pa.Table,
    test_sha256: str,
    bootstrap: Bootstrap,
) -> dict[str, PairedDifference] | None:
    """The differences of a recipe's values to the class means that the champion kept; None where it kept none of these test images."""
    kept = champion.get("paired")
    if not kept or kept["measures"] != list(PAIRED) or kept["test_sha256"] != test_sha256:
        return None
    values, classes = query_values(per_query, per_class), query_classes(per_query, per_class)
    means = {label: np.array(row, np.float64) for label, row in kept["classes"].items()}
    # nan in `values` where a row is no query of a measure, so a class's mean counts for its queries alone
    found = paired_differences(values, np.stack([means[label] for label in classes]), classes, bootstrap)
    # the means were rounded: what is less than that is no difference
    return {key: PairedDifference(*(round(part, 3) + 0.0 for part in each)) for key, each in found.items()}


def incomparable(kept: Mapping[str, Any], settings: Mapping[str, Any], paired: Collection[str]) -> dict[str, str]:
    """By measure: why its value is not comparable with the champion's, because it was measured with other settings.

    `kept` and `settings`, the champion's and the recipe's: values by name, such as "evaluation.knn_k"; what the champion does not say is
    taken to be the same. `paired`: the measures whose difference has an interval of its own, whatever level the champion's had.
    """
    found = {}
    for measure in MEASURES:
        used = ("precision", *measure.settings, *(() if measure.key in paired else ("confidence",)))
        names = [f"evaluation.{name}" for name in used]
        if changed := [name for name in names if name in kept and kept[name] != settings[name]]:
            found[measure.key] = f"not comparable: {' and '.join(changed)} changed since the champion was measured"
    return found


def says_how_it_was_measured(kept: Mapping[str, Any]) -> bool:
    """Champions of earlier times kept only what their model was trained with."""
    return any(name.startswith("evaluation.") for name in kept)
