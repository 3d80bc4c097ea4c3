"""Section «How near training comes to the test»: each test picture's nearest training picture, as curated_images found it.

What is near is a matter of pixels, not of a model: a thumbnail's correlation. Leaving near-identical pictures out is curation's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from assets import artifacts
from assets.measures import COLUMNS, percent
from assets.pictures.credits import Credit, credits_of
from assets.pictures.small import data_uri, thumbnail
from assets.pictures.table import read_rows
from assets.recipes import BASE
from assets.report.results import outcome_view

STEPS = (0.8, 0.9, 0.95)  # of correlation, beyond which pictures are counted


@dataclass(frozen=True)
class Pair:
    """A test picture and its nearest training picture: rows of the curated table without their images."""

    test: Mapping[str, Any]
    train: Mapping[str, Any]
    correlation: float


def read_nearest() -> list[Pair]:
    """One pair a test picture, the nearest first."""
    found = pq.read_table(artifacts.NEAREST).to_pylist()
    columns = ["id", "class_name", "label", "source", "license", "attribution"]
    test, train = (
        {row["id"]: row for row in read_rows(artifacts.CURATED_IMAGES, split, columns).to_pylist()} for split in ("test", "train")
    )
    pairs = [Pair(test[row["id"]], train[row["nearest"]], row["correlation"]) for row in found]
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.test["id"]))


def examples(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """The nearest pairs, one of each two classes."""
    of_classes: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        of_classes.setdefault((pair.test["label"], pair.train["label"]), pair)
    return list(of_classes.values())[:count]


def siblings_view(pairs: Sequence[Pair], shown: Sequence[Pair], pictures: Mapping[str, bytes], side: int) -> dict[str, Any]:
    """`pictures`: encoded bytes by id, of `shown` at least."""
    correlations = np.array([pair.correlation for pair in pairs])

    def picture(row: Mapping[str, Any]) -> dict[str, str]:
        (credit,) = credits_of([row])  # type: ignore[list-item]
        title = f"{row['class_name']} · {credit.short}"
        uri = data_uri(thumbnail(pictures[row["id"]], side))
        return {"uri": uri, "name": row["class_name"], "alt": f"{row['class_name']}, picture by {credit.source}", "title": title}

    return {
        "images": len(pairs),
        "shares": [
            {"beyond": step, "images": int((correlations > step).sum()), "share": percent(100 * float((correlations > step).mean()))}
            for step in STEPS
            if len(pairs)
        ],
        "pairs": [{"test": picture(pair.test), "train": picture(pair.train), "correlation": f"{pair.correlation:.2f}"} for pair in shown],
        "credits": credits_of_pairs(shown),
    }


def credits_of_pairs(pairs: Sequence[Pair]) -> list[Credit]:
    return credits_of([row for pair in pairs for row in (pair.test, pair.train)])  # type: ignore[misc]


def without_siblings_view(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A line for each recipe but base, and for each pair: the differences on the classes without siblings, as on all of them."""
    rows = [row for row in metrics["rows"] if row["without_siblings"] and row["recipe"] != BASE]
    found = [(row["recipe"], BASE, row["without_siblings"]["against_base"]) for row in rows]
    found += [(pair["recipe"], pair["against"], pair["without_siblings"]) for pair in metrics["pairs"] if pair["without_siblings"]]
    lines = [
        {"name": name, "against": against, "cells": [outcome_view(differences[m.key]) if m.key in differences else None for m in COLUMNS]}
        for name, against, differences in found
    ]
    return {"classes": rows[0]["without_siblings"]["classes"] if rows else 0, "lines": lines}
