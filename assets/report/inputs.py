"""What the report reads: the test split, the evaluations, the histories, the champion, checked to belong together. It draws nothing.

Test order: the rows of the curated table's test split as they stand there, (split, id).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets import artifacts

History = Sequence[Mapping[str, Any]]  # of a training, a row an epoch


def read_pictures(ids: set[str]) -> dict[str, bytes]:
    """The encoded pictures of some test images, by id."""
    wanted = pc.field("split") == "test"
    rows = pq.read_table(artifacts.CURATED_IMAGES, columns=["id", "image"], filters=wanted & pc.field("id").isin(sorted(ids)))
    return dict(zip(rows["id"].to_pylist(), rows["image"].to_pylist(), strict=True))


def input_files() -> list[Path]:
    """The files and folders of dvc.yaml from which a report follows."""
    evaluations = [artifacts.evaluation_dir(recipe) for recipe in artifacts.RECIPES]
    histories = [artifacts.history_file(recipe) for recipe in artifacts.RECIPES if recipe != "base"]
    return [artifacts.CURATED_IMAGES, artifacts.REJECTED_IMAGES, *evaluations, *histories, artifacts.CHAMPION]


def read_alignment() -> list[dict[str, Any]] | None:
    """How the base was aligned, epoch by epoch, where this project trained it; None for a checkpoint of others."""
    return artifacts.read_json(artifacts.model_dir("base") / "model_card.json").get("alignment")


def count_rejected() -> list[tuple[str, int]]:
    """How many images curation left out, by reason, the most frequent first."""
    reasons = Counter(pq.read_table(artifacts.REJECTED_IMAGES, columns=["reason"])["reason"].to_pylist())
    return sorted(reasons.items(), key=lambda each: (-each[1], each[0]))


def count_rows() -> list[dict[str, Any]]:
    """Images and classes of every split of the curated table that has any, in the order of SPLITS."""
    columns = pq.read_table(artifacts.CURATED_IMAGES, columns=["split", "label"])
    counts = columns.group_by("split").aggregate([([], "count_all"), ("label", "count_distinct")]).to_pylist()
    by_split = {row["split"]: row for row in counts}
    return [
        {"split": split, "images": by_split[split]["count_all"], "classes": by_split[split]["label_count_distinct"]}
        for split in artifacts.SPLITS
        if split in by_split
    ]
