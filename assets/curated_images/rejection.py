"""Which usable images are rejected because of the others: exact copies, and classes that are too small. nearest.py compares further."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from assets.pictures.schema import GIVEN_SPLITS

REJECTED_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("id", "reason", "detail")),
        pa.field("other", pa.string()),  # the picture for which it left; of a benchmark its file
    ]
)

Reason = tuple[str, str, str | None]  # reason, detail, the other picture


def repeated_pictures(rows: Sequence[Mapping[str, Any]], pixels: Sequence[bytes]) -> tuple[dict[int, Reason], dict[int, list[str]]]:
    """Rows whose picture another row has too, each with its reason, and the captions of the rows that stay in their place.

    Of equal pictures one stays: one with a label, of these one with a given split (test first, so that training never has its copy), of
    these one with captions, of these the first. It takes the captions of its copies of the same class and of the library. Pictures of two
    classes are compared too: one picture in both would contradict itself. `pixels` identifies each decoded picture.
    """
    alike: dict[bytes, list[int]] = defaultdict(list)
    for number, each in enumerate(pixels):
        alike[each].append(number)
    rejected: dict[int, Reason] = {}
    captions: dict[int, list[str]] = {}
    for numbers in alike.values():
        if len(numbers) == 1:
            continue
        stays, *copies = sorted(numbers, key=lambda number: _worth(rows[number]))
        label = rows[stays]["label"]
        for number in copies:
            its_label = rows[number]["label"]
            across = "" if label == its_label else f" of {_name(label)}; this one is of {_name(its_label)}"
            rejected[number] = "duplicate", f"same pixels as {rows[stays]['id']}{across}", rows[stays]["id"]
        merged = [rows[number]["captions"] for number in (stays, *copies) if rows[number]["label"] in (label, None)]
        captions[stays] = list(dict.fromkeys(caption for own in merged for caption in own))
    return rejected, captions


def _worth(row: Mapping[str, Any]) -> tuple[bool, int, bool]:
    """Smaller for what is rather kept; equal ones keep their order."""
    split = row["given_split"]
    rank = len(GIVEN_SPLITS) if split is None else len(GIVEN_SPLITS) - 1 - GIVEN_SPLITS.index(split)
    return row["label"] is None, rank, not row["captions"]


def _name(label: str | None) -> str:
    return "the library" if label is None else f"class {label}"


def too_small_classes(counts: Mapping[str, int], min_images: int) -> dict[str, Reason]:
    """Labels with fewer than `min_images` images, each with its reason. `counts`: images by label."""
    return {
        label: ("class_too_small", f"class {label} has {count} usable picture(s); a class needs {min_images}", None)
        for label, count in counts.items()
        if count < min_images
    }
