"""What is done about pictures that look the same: listed, or all but one leave. Finding them is near_duplicates.py's.

Pictures stand in order of worth, so that of two the first stays: one with a label, with a given split (test first), with captions, the
larger one, then the first by id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from assets.curated_images.fingerprint import BYTES, VIEWS
from assets.curated_images.near_duplicates import Pairs, alike_in_colour, near_pairs
from assets.curated_images.thumbnails import Gallery, Thumbnails
from assets.pictures.schema import GIVEN_SPLITS

# What a person may want to know of kept pictures. `other`: the picture that it looks like, or the copy that left.
NOTES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("note", pa.string(), nullable=False),  # a word, such as near_duplicate
        pa.field("detail", pa.string(), nullable=False),  # a sentence
        pa.field("other", pa.string()),
    ]
)
PAIRS_AT_ONCE = 8_192
TRAINED_ON = ("train", "validation")


@dataclass(frozen=True)
class Looks:
    """The fingerprints and thumbnails of some pictures."""

    fingerprints: np.ndarray  # uint8 [N, VIEWS, BYTES]
    thumbnails: Gallery  # uint8 [N, 768]


def looks_of(fingerprints: Path, thumbnails: Path, rows: np.ndarray) -> Looks:
    """Those of some rows, int64 [N]. Thumbnails are read as they are asked for."""
    if not len(rows):
        return Looks(np.zeros((0, VIEWS, BYTES), np.uint8), Thumbnails(thumbnails, rows))
    mapped = np.memmap(fingerprints, np.uint8, mode="r").reshape(-1, VIEWS, BYTES)
    return Looks(mapped[rows], Thumbnails(thumbnails, rows))


def alike(queries: Looks, gallery: Looks, max_bits: int) -> Pairs:
    """Pairs that look the same in colour as well, see near_pairs."""
    found = near_pairs(queries.fingerprints, gallery.fingerprints, max_bits)
    same = [
        alike_in_colour(queries.thumbnails[found.queries[part]], gallery.thumbnails[found.rows[part]])
        for part in (slice(start, start + PAIRS_AT_ONCE) for start in range(0, len(found.queries), PAIRS_AT_ONCE))
    ]
    kept = np.concatenate([np.zeros(0, bool), *same])
    return Pairs(found.queries[kept], found.rows[kept], found.distances[kept])


def by_worth(usable: pl.DataFrame) -> pl.DataFrame:
    rank = pl.col("given_split").replace_strict(
        {split: number for number, split in enumerate(reversed(GIVEN_SPLITS))}, default=len(GIVEN_SPLITS)
    )
    return usable.sort(
        pl.col("label").is_null(), rank, pl.col("captions").list.len() == 0, -(pl.col("width").cast(pl.Int64) * pl.col("height")), "id"
    )


def leaving(ranked: pl.DataFrame, pairs: Pairs) -> Iterator[dict[str, str]]:
    """The rejected rows where all but one of like pictures leave: a picture leaves for one before it that stays."""
    names, labels = ranked["id"].to_list(), ranked["label"].to_list()
    gone = np.zeros(len(names), bool)
    for query, row, distance in zip(pairs.queries.tolist(), pairs.rows.tolist(), pairs.distances.tolist(), strict=True):
        if not gone[query] and not gone[row]:
            gone[query] = True
            across = "" if labels[query] == labels[row] else f" of {_class(labels[row])}; this one is of {_class(labels[query])}"
            detail = f"looks like {names[row]}{across} ({_bits(distance)})"
            yield {"id": names[query], "reason": "near_duplicate", "detail": detail, "other": names[row]}


def noted(ranked: pl.DataFrame, pairs: Pairs, kept: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Of each kept picture that looks like another: the one most like it, one of another class, one on the other side of the test."""
    rows = np.unique(np.concatenate([pairs.queries, pairs.rows]))
    names = dict(zip(rows.tolist(), ranked["id"].gather(rows).to_list(), strict=True))
    paired = kept.filter(pl.col("id").is_in(list(names.values()))).select("id", "label", "split")
    known = {name: (label, split) for name, label, split in paired.iter_rows()}
    said: set[tuple[int, str]] = set()
    for query, row, distance in zip(pairs.queries.tolist(), pairs.rows.tolist(), pairs.distances.tolist(), strict=True):
        one, other = names[query], names[row]
        if one not in known or other not in known:
            continue
        (label, split), (its_label, its_split) = known[one], known[other]
        facts = {"near_duplicate": f"looks like {other} ({_bits(distance)})"}
        if None not in (label, its_label) and label != its_label:
            facts["label_conflict"] = f"looks like {other} of class {its_label}; this one is of class {label} ({_bits(distance)})"
        if (split == "test" and its_split in TRAINED_ON) or (its_split == "test" and split in TRAINED_ON):
            facts["across_splits"] = f"looks like {other} of the split {its_split}; this one is of {split} ({_bits(distance)})"
        for note, detail in facts.items():
            if (query, note) not in said:
                said.add((query, note))
                yield {"id": one, "note": note, "detail": detail, "other": other}


def _bits(distance: int) -> str:
    return f"{distance} of 256 bits differ"


def _class(label: str | None) -> str:
    return "the library" if label is None else f"class {label}"


def like_benchmarks(trained: pl.DataFrame, looks: Looks, names: list[str], of_benchmarks: Looks, max_bits: int) -> list[dict[str, str]]:
    """The rejected rows of `trained` pictures, with their `looks`, that look like a picture of a public benchmark, the one most like it."""
    pairs = alike(looks, of_benchmarks, max_bits)
    found: dict[int, dict[str, str]] = {}
    for query, row, distance in zip(pairs.queries.tolist(), pairs.rows.tolist(), pairs.distances.tolist(), strict=True):
        detail = f"looks like {names[row]} of a public benchmark ({_bits(distance)})"
        found.setdefault(query, {"id": trained["id"][query], "reason": "near_benchmark", "detail": detail, "other": names[row]})
    return list(found.values())
