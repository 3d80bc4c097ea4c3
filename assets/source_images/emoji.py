"""The demo's source: eight openly licensed drawings of every Unicode emoji, as rows. Fetching and drawing are in other modules.

Base emoji only, without skin tones. The class is the code point; its views are the sets' drawings.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.progress import track
from assets.source_images.emoji_families import family_of
from assets.source_images.iconify import IconSet, read_codes, read_icons, read_info, render, svg

logger = logging.getLogger(__name__)

VENDORS = ("emojione", "emojione-v1", "fluent-emoji", "fluent-emoji-flat", "noto", "noto-v1", "openmoji", "twemoji")


def read_emoji(packages: Path, vendors: Sequence[str], size: int) -> Iterator[dict[str, Any]]:
    """Rows of IMAGES_SCHEMA in order of id, drawn at size × size pixels, from the node_modules folder `packages`."""
    check_vendors(vendors)
    emoji = read_names(packages / "emojibase-data" / "en")
    # a set without codes of its own borrows the names that the other sets give a code, chosen as a vendor or not
    codes = {vendor: read_codes(packages / "@iconify-json" / vendor) for vendor in VENDORS}
    rows = []
    for vendor in vendors:
        package = packages / "@iconify-json" / vendor
        icons, (license, attribution) = read_icons(package), read_info(package)
        for entry in emoji:
            if name := find_icon(icons, entry, [codes[vendor], *codes.values()]):
                shared = {key: entry[key] for key in ("label", "class_name", "group", "family", "captions")}
                rows.append(
                    shared
                    | {"id": f"{entry['label']}-{vendor}".lower(), "image": svg(icons, name, size), "given_split": None}
                    | {"source": vendor, "license": license, "attribution": attribution}
                )
    rows.sort(key=lambda row: row["id"])
    logger.info("%d drawings of %d emoji by %d sets", len(rows), len({row["label"] for row in rows}), len(vendors))
    # processes, since the renderer keeps the GIL
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        drawings = pool.map(render, [row["image"] for row in rows], chunksize=64)
        for row, drawing in track(zip(rows, drawings, strict=True), total=len(rows), what="drawing emoji", unit="images"):
            yield row | {"image": drawing}


def check_vendors(vendors: Sequence[str]) -> None:
    wrong = [vendor for vendor in vendors if vendor not in VENDORS]
    if wrong or len(set(vendors)) < len(vendors):
        raise UserError(
            f"source_images.sources, vendors: {'unknown ' + ', '.join(wrong) if wrong else 'a set is listed twice'}."
            f" Allowed, each once: {', '.join(VENDORS)}."
        )


def read_names(emojibase: Path) -> list[dict[str, Any]]:
    """Every base emoji that has a group: label (code points in hex), class name, group, family, captions (tags and
    subgroup, not the name)."""
    entries = json.loads((emojibase / "data.json").read_text(encoding="utf-8"))
    messages = json.loads((emojibase / "messages.json").read_text(encoding="utf-8"))
    groups, subgroups = ({each["order"]: each["message"] for each in messages[key]} for key in ("groups", "subgroups"))
    return [
        {
            "label": entry["hexcode"],
            "class_name": entry["label"],
            "group": groups[entry["group"]],
            "family": family_of(entry["hexcode"]),
            "captions": [
                caption
                for caption in dict.fromkeys([*entry.get("tags", []), subgroups[entry["subgroup"]]])
                if caption.casefold() != entry["label"].casefold()
            ],
        }
        for entry in entries
        if "group" in entry  # regional indicators have none
    ]


def find_icon(icons: IconSet, entry: dict[str, Any], codes: Sequence[dict[str, str]]) -> str | None:
    """The name under which a set draws an emoji: by code point (in order of `codes`), else by its English name; None if it does not."""
    code = "-".join(part for part in entry["label"].lower().split("-") if part != "fe0f")
    candidates = [*(each.get(code) for each in codes), slug(entry["class_name"])]
    return next((name for name in candidates if name and name in icons), None)


def slug(name: str) -> str:
    """«woman’s hat» → womans-hat, as the icon sets spell their names."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub("['’]", "", name.lower())).strip("-")
