"""The page about the data: what was read, why pictures were rejected, what was noted of others, which look the same, how large classes are.

Finding all this is curated_images'. Rejected pictures are shown as the source has them, so they are opened as untrusted bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup
from matplotlib.axes import Axes

from assets import artifacts
from assets.pictures.apart import opened
from assets.pictures.credits import credits_of, share_alike
from assets.pictures.decoding import BadPicture
from assets.pictures.small import data_uri
from assets.pictures.table import read_images_of, read_rows
from assets.report.drawing import BLUE, svg_panel

SAMPLES, PAIRS = 8, 12  # of each reason; of each kind of pair
SIDE, MAX_PIXELS = 112, 100_000_000
EXTREMES = 8  # classes, the largest and the smallest
PANEL = (7.5, 2.2)  # inches

# reason or note → what it means, and what a person may do about it
REASONS = {
    "undecodable": "No decoder reads it to its end. Get the file anew.",
    "unsupported": "A file of a kind that is not read, or only with a package that is not there.",
    "crashed": "Its decoder crashed. The next run tries again.",
    "too_slow": "Its decoder took longer than curated_images.max_decode_seconds. The next run tries again.",
    "too_large": "More pixels than curated_images.max_megapixels: a decompression bomb, or a picture to scale down.",
    "too_small": "A side has fewer pixels than curated_images.min_side.",
    "too_long": "One side is longer than curated_images.max_aspect_ratio times the other.",
    "blank": "It shows nothing, by curated_images.blank_range.",
    "license": "Its licence is none of curated_images.licenses.",
    "duplicate_id": "An earlier row has the same id.",
    "duplicate": "Another picture has the same pixels. Of copies one stays: one with a label, with captions.",
    "near_duplicate": "It looks like another picture, which stays.",
    "class_too_small": "Its class has fewer pictures than curated_images.min_images_per_class.",
    "near_test": "It is nearly the same as a test picture, so it left training.",
    "near_benchmark": "It looks like a picture of a public benchmark, so it left training.",
}
NOTES = {
    "near_duplicate": "It looks like another kept picture. curated_images.near_duplicates: drop keeps one of such pictures.",
    "label_conflict": "It looks like a picture of another class: one of the two labels may be wrong.",
    "across_splits": "It looks like a picture on the other side of the test: what was trained on may be measured.",
    "several_frames": "It moves or has pages; its first frame stands for it.",
    "profile_ignored": "Its colour profile is broken; its colours were taken for sRGB.",
    "caption_dropped": "A caption was empty or says nothing of the picture.",
    "caption_cut": "A caption was longer than curated_images.max_caption_characters.",
    "caption_cleaned": "Control characters were taken out of a caption.",
}
SHOWN_AS_PAIRS = {  # kind → title, from rejected or noted rows
    "near_test": "Left training: nearly the same as a test picture",
    "near_benchmark": "Left training: like a picture of a public benchmark",
    "across_splits": "Kept on both sides of the test, and alike",
    "label_conflict": "Alike, of two classes",
    "contradicted": "Test pictures whose neighbours by the base agree on another class: their labels may be wrong",
    "taken_for_one": "Test pictures of two classes that the base hardly tells apart",
    "near_duplicate": "Alike, of one class or of the library",
    "duplicate": "The same pixels",
}


def curation_view(
    funnel: Mapping[str, Any], readable: Sequence[Mapping[str, Any]], by_base: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """What the template curation.html.jinja takes. `funnel`, `readable`: those of the report's section «Data»; `by_base`: rows of
    doubtful.py by their kind in SHOWN_AS_PAIRS."""
    rejected, notes = pq.read_table(artifacts.REJECTED_IMAGES).to_pylist(), pq.read_table(artifacts.NOTES).to_pylist()
    by_reason, by_note = _by(rejected, "reason"), _by(notes, "note")
    of_kind = {kind: [*by_reason.get(kind, []), *by_note.get(kind, []), *by_base.get(kind, [])] for kind in SHOWN_AS_PAIRS}
    pairs = _pairs(of_kind)
    samples = {kind: _spread(rows, SAMPLES) for found in (by_reason, by_note) for kind, rows in found.items() if kind not in pairs}
    wanted = {row[name] for rows in (*pairs.values(), *samples.values()) for row in rows for name in ("id", "other") if row.get(name)}
    album = _album(wanted)
    alike = [{"title": SHOWN_AS_PAIRS[kind], "total": len(of_kind[kind]), "pairs": _shown(rows, album)} for kind, rows in pairs.items()]
    credited = credits_of([each for each in album.values() if each["uri"]])
    return {
        "funnel": funnel,
        "readable": readable,
        "reasons": _kinds(by_reason, REASONS, samples, album),
        "notes": _kinds(by_note, NOTES, samples, album),
        "pairs": alike,
        **_classes(),
        "expectations": artifacts.read_json(artifacts.EXPECTATIONS),
        "credits": credited,
        "share_alike": share_alike(credited),
    }


def _by(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row[name]].append(row)
    return dict(sorted(found.items(), key=lambda each: (-len(each[1]), each[0])))


def _spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Some of the rows, from all over them."""
    return [rows[place] for place in sorted({round(place) for place in np.linspace(0, len(rows) - 1, min(count, len(rows)))})]


def _pairs(found: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, list[Mapping[str, Any]]]:
    """Those to show of each kind; a pair that stands under one kind is not shown again under a later one."""
    said: set[tuple[str, str]] = set()
    chosen: dict[str, list[Mapping[str, Any]]] = {}
    for kind, rows in found.items():
        new = [row for row in rows if row.get("other") and (row["id"], row["other"]) not in said]
        said |= {(row["id"], row["other"]) for row in new}
        if new:
            chosen[kind] = _spread(new, PAIRS)
    return chosen


def _album(ids: set[str]) -> dict[str, dict[str, Any]]:
    """The rows of the source that are shown, each with its picture as the address of an <img>, or None where it does not open."""
    columns = ["id", "class_name", "source", "license", "attribution"]
    rows = {row["id"]: row for row in read_rows(artifacts.SOURCE_IMAGES, columns=columns).to_pylist() if row["id"] in ids}
    images = read_images_of(artifacts.SOURCE_IMAGES, set(rows))
    return {name: row | {"uri": _small(images[name])} for name, row in rows.items()}


def _small(data: bytes) -> str | None:
    try:
        picture = opened(data, MAX_PIXELS)
    except BadPicture:
        return None
    picture.thumbnail((SIDE, SIDE))
    return data_uri(picture)


def _kinds(
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    meanings: Mapping[str, str],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    album: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    return [
        {
            "name": kind.replace("_", " "),
            "meaning": meanings.get(kind, ""),
            "rows": len(rows),
            "samples": [{**row, "picture": album.get(row["id"])} for row in samples.get(kind, ())],
        }
        for kind, rows in found.items()
    ]


def _shown(rows: Sequence[Mapping[str, Any]], album: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "one": album.get(row["id"]), "two": album.get(row["other"])} for row in rows]


def _classes() -> dict[str, Any]:
    columns = read_rows(artifacts.CURATED_IMAGES, columns=["label", "class_name"]).to_pylist()
    names = {row["label"]: row["class_name"] for row in columns if row["label"] is not None}
    counts = Counter(row["label"] for row in columns if row["label"] is not None)
    ordered = [{"name": names[label], "images": count} for label, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    svg = Markup(svg_panel(PANEL, _histogram, np.array(list(counts.values())))) if counts else None
    return {
        "classes": len(ordered),
        "histogram": svg,
        "largest": ordered[:EXTREMES],
        "smallest": ordered[EXTREMES:][-EXTREMES:],
    }


def _histogram(axes: Axes, sizes: np.ndarray) -> None:
    """Classes by their number of pictures; in steps that grow where sizes differ much."""
    most = int(sizes.max())
    if most <= 40:
        edges = np.arange(int(sizes.min()), most + 2) - 0.5
    else:
        edges = np.unique(np.geomspace(max(1, sizes.min()), most + 1, 25).round())
        axes.set_xscale("log")
    axes.hist(sizes, edges.tolist(), color=BLUE, rwidth=0.9)
    axes.set_xlabel("pictures of a class")
    axes.set_ylabel("classes")
