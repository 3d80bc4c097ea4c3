"""Section «Data»: how many images were read, rejected and kept, in which splits; what they cannot show. Curating is curated_images'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets import artifacts
from assets.limits import Sides, limits, sides
from assets.measures import percent
from assets.pictures.schema import SPLITS
from assets.pictures.table import read_rows


def count_rejected() -> list[tuple[str, int]]:
    """How many images curation left out, by reason, the most frequent first."""
    reasons = Counter(pq.read_table(artifacts.REJECTED_IMAGES, columns=["reason"])["reason"].to_pylist())
    return sorted(reasons.items(), key=lambda each: (-each[1], each[0]))


def count_rows() -> list[dict[str, Any]]:
    """Images and classes of every split of the curated table that has any, in the order of SPLITS."""
    columns = read_rows(artifacts.CURATED_IMAGES, columns=["split", "label"])
    counts = columns.group_by("split").aggregate([([], "count_all"), ("label", "count_distinct")]).to_pylist()
    by_split = {row["split"]: row for row in counts}
    return [
        {"split": split, "images": by_split[split]["count_all"], "classes": by_split[split]["label_count_distinct"]}
        for split in SPLITS
        if split in by_split
    ]


def read_sides() -> Sides:
    rows = read_rows(artifacts.CURATED_IMAGES, columns=["split", "label", "family", "captions"])
    captioned = bool(pc.max(pc.list_value_length(rows["captions"])).as_py())
    return sides(*(rows[name].to_pylist() for name in ("split", "label", "family")), captions=captioned)


def limits_view(found: Sides, histories: Mapping[str, Mapping[str, Any]], level: float) -> list[str]:
    """What these pictures cannot show; also of which recipe validation kept the start, and why."""
    stayed = [
        f"what {recipe} is worth: it is as it started. It keeps {history['kept']['said']}"
        for recipe, history in histories.items()
        if history["kept"]["epoch"] == 0
    ]
    return [*limits(found, level=level), *stayed]


def funnel_view(rejected: Sequence[tuple[str, int]], splits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers read, kept and rejected by reason, shares in percent of what was read; and the splits, in percent of what was kept."""
    kept, dropped = sum(split["images"] for split in splits), sum(count for _, count in rejected)
    read = kept + dropped
    return {
        "read": read,
        "kept": kept,
        "rejected": [
            {"reason": reason.replace("_", " "), "images": count, "share": f"{100 * count / read:.2g}"} for reason, count in rejected
        ],
        "dropped": dropped,
        "splits": [{**split, "share": percent(100 * split["images"] / kept)} for split in splits],
    }
