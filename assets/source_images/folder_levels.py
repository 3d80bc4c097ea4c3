"""What the folders above a picture say about it: its split, its family, its label. Finding the pictures is image_folder's concern."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

from assets.errors import UserError
from assets.source_images.spelling import one_spelling

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
SHOWN = 3


class Place(NamedTuple):
    """What the folders say of one picture; all None for a picture without a label."""

    label: str | None
    family: str | None
    split: str | None  # as its folder is called


def split_named(name: str) -> str | None:
    """train, validation or test for what people call them, in any case; None for any other word."""
    return SPLIT_NAMES.get(name.strip().casefold())


def recognise(pictures: Collection[str], folders: Sequence[str]) -> list[str]:
    """`folders`, or [split, label] where the setting says [label] and the first folders are plainly splits.

    Plainly: all of them that hold pictures are called like splits, there are at least two, one for training, and their pictures lie in
    folders inside them. A picture is its path relative to the root, with /.
    """
    inside = [each.split("/") for each in pictures if "/" in each]
    firsts = sorted({parts[0] for parts in inside})
    splits = [name for name in firsts if split_named(name)]
    if list(folders) != ["label"] or not splits:
        return list(folders)
    if len(splits) < len(firsts):
        deeper = any(parts[0] in splits and len(parts) > 2 for parts in inside)
        if len(splits) > 1 and "train" in map(split_named, splits) and deeper:
            others = [name for name in firsts if name not in splits]
            logger.warning(
                "the folders %s are called like splits and are read as classes, since %s%s is none. If the folders in them are the classes,"
                " move the others away and set source_images.sources, folders: [split, label]",
                ", ".join(splits),
                ", ".join(others[:SHOWN]),
                ", …" if len(others) > SHOWN else "",
            )
        return list(folders)
    if len(firsts) > 1 and "train" in map(split_named, firsts) and all(len(parts) > 2 for parts in inside):
        logger.info("the folders %s are splits and the folders in them classes, so folders: [split, label] is used", ", ".join(firsts))
        return ["split", "label"]
    logger.warning(
        "the folder(s) %s are called like splits and are read as classes. If the folders in them are the classes, set"
        " source_images.sources, folders: [split, label]",
        ", ".join(firsts),
    )
    return list(folders)


def place_of(picture: str, folders: Sequence[str]) -> Place:
    """By the folders above the picture, outermost first; deeper ones do not matter. In fewer folders than `folders` it has no label."""
    above = picture.split("/")[:-1]
    if len(above) < len(folders):
        return Place(None, None, None)
    found = dict(zip(folders, above, strict=False))
    family = found.get("family")
    return Place(_named(found["label"]), None if family is None else _named(family), found.get("split"))


def _named(folder: str) -> str:
    return one_spelling(folder.strip()) or folder


def split_folders(names: Collection[str]) -> dict[str, str]:
    """Folder name → the split that it stands for. Without one for test, those for validation are tested with."""
    found = {name: split for name in sorted(names) if (split := split_named(name)) is not None}
    if wrong := sorted(set(names) - found.keys()):
        raise UserError(
            f"source_images.sources, folders: the first folders are to be splits, and {', '.join(wrong[:SHOWN])}"
            f"{', …' if len(wrong) > SHOWN else ''} is none. Allowed, in any case: {', '.join(SPLIT_NAMES)}."
        )
    if "test" not in found.values() and "validation" in found.values():
        logger.warning("there is no folder for test, so the pictures for validation are tested with, and others are held out to validate")
        return {name: "test" if split == "validation" else split for name, split in found.items()}
    return found
