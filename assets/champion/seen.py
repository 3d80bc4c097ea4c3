"""What the champion was trained on, and which of today's test classes it has therefore seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets import artifacts
from assets.pictures.table import read_rows

if TYPE_CHECKING:
    from assets.evaluations import TestSplit

TRAINED_ON_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("label", "family", "sha256", "split")])


def trained_on() -> pa.Table:
    """TRAINED_ON_SCHEMA: the pictures of today's curated table that a model learns from, or is chosen by (validation)."""
    rows = read_rows(artifacts.CURATED_IMAGES, columns=TRAINED_ON_SCHEMA.names)
    return rows.filter(pc.is_in(rows["split"], value_set=pa.array(["train", "validation"]))).cast(TRAINED_ON_SCHEMA)


def seen_families(test: TestSplit) -> list[str]:
    """The families of test classes that the champion has seen and today's candidates have not; sorted.

    Seen is a family of which any class, or any picture by its file, was trained on. With the same seed and fractions there is none. A
    family of which today's training has pictures too, because the source gives the split, is a test for neither more than for the other:
    of it only pictures count.
    """
    before, now = pq.read_table(artifacts.TRAINED_ON), trained_on()
    shared = set(now["family"].to_pylist())
    families, labels, files = (set(before[name].to_pylist()) for name in ("family", "label", "sha256"))
    found = set()
    for label, family, sha256 in zip(*(test.rows[name].to_pylist() for name in ("label", "family", "sha256")), strict=True):
        if sha256 in files or (family not in shared and (family in families or label in labels)):
            found.add(family)
    return sorted(found)
