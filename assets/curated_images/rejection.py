"""Which usable images are rejected because of the others: repeated ids, exact duplicates, classes that are too small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

REJECTED_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", "reason", "detail")])

Reason = tuple[str, str]  # reason, detail


class Repetitions:
    """Recognises what was seen before. Feed it images in order of id: the first of equal ones stays."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._first_with: dict[bytes, tuple[str, str | None]] = {}

    def repeated_id(self, each: str) -> Reason | None:
        if each in self._ids:
            return "duplicate_id", "an earlier row has this id"
        self._ids.add(each)
        return None

    def repeated_pixels(self, each: str, label: str | None, pixels: bytes) -> Reason | None:
        """`pixels` identifies the decoded picture. Compared across labels too: one picture in two classes would contradict itself."""
        first, its_label = self._first_with.setdefault(pixels, (each, label))
        if first == each:
            return None
        across = "" if label == its_label else f" of {_name(its_label)}; this one is of {_name(label)}"
        return "duplicate", f"same pixels as {first}{across}"


def _name(label: str | None) -> str:
    return "the library" if label is None else f"class {label}"


def too_small_classes(labels: Sequence[str | None], min_images: int) -> dict[str, Reason]:
    """Labels with fewer than `min_images` images, each with its reason. The library does not count as a class."""
    counts = Counter(label for label in labels if label is not None)
    return {
        label: ("class_too_small", f"class {label} has {count} usable picture(s); a class needs {min_images}")
        for label, count in counts.items()
        if count < min_images
    }
