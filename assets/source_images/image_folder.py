"""The user's own pictures, root/<label>/… or as `folders` says, as rows. Whether a file is a usable picture is curated_images' concern."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from assets.addresses import Stored, exists, is_folder, is_hidden, read_each, read_file, stored_under
from assets.errors import UserError
from assets.pictures.families import one_family
from assets.source_images import captions_file
from assets.source_images.captions_file import Written
from assets.source_images.folder_levels import Place, place_of, recognise, split_folders
from assets.source_images.folder_names import refuse_linked_folders
from assets.source_images.listed import Listed

logger = logging.getLogger(__name__)

SUFFIXES = ("jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "avif", "heic", "heif", "jxl")
LAYOUT = f"Put pictures ({', '.join(SUFFIXES)}) into {{root}}/<label>/, or straight into {{root}} to be searched only."


def read_image_folder(root: Path | str, license: str, attribution: str, folders: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of IMAGES_SCHEMA in order of id."""
    listed = list_image_folder(root, license, attribution, folders)
    for row, image in zip(listed.rows, listed.read(range(len(listed.rows))), strict=True):
        yield row | {"image": image}


def list_image_folder(root: Path | str, license: str, attribution: str, folders: Sequence[str]) -> Listed:
    """The pictures of a folder, a path or an address; the id is the path relative to `root`.

    `folders`: what the folders under `root` are, outermost first, the label last; a picture in fewer folders has no label. The captions
    file may give families and splits too; what contradicts itself is refused. Files are read as they are. One that cannot be read becomes
    a row without bytes, so that curated_images counts and rejects it like any broken picture.
    """
    layout = LAYOUT.format(root=root)
    if not is_folder(str(root)):
        raise UserError(f"source_images.sources, root: {root} is {'not a folder' if exists(str(root)) else 'missing'}. {layout}")
    objects = {} if isinstance(root, Path) else _pictures_at(root)
    files = find_pictures(root) if isinstance(root, Path) else {}
    names = [*files, *objects]
    if not names:
        raise UserError(f"source_images.sources, root: {root} holds no pictures. {layout}")
    written = captions_file.read_captions(root, names)
    places = places_of(names, written, folders)
    _log_places(root, places, folders)
    rows = [
        {
            "id": each,
            "label": place.label,
            "class_name": class_name_of(place.label),
            "group": None,
            "family": place.family,
            "given_split": place.split,
            "captions": written[each].captions if each in written else [],
            "source": "image_folder",
            "license": license,
            "attribution": attribution,
        }
        for each, place in places.items()
    ]
    ids = list(places)
    if objects:
        there = [objects[each] for each in ids]
        return Listed(rows, lambda positions: read_each([there[position] for position in positions]), there)
    return Listed(rows, lambda positions: (read_file(files[ids[position]]) for position in positions))


def places_of(pictures: Collection[str], written: Mapping[str, Written], folders: Sequence[str]) -> dict[str, Place]:
    """Label, family and split of every picture, by its folders and the captions file together. UserError where these disagree."""
    folders = recognise(pictures, folders)
    found = {each: place_of(each, folders) for each in pictures}
    split_of = split_folders({place.split for place in found.values() if place.split is not None})
    for each, place in found.items():
        if place.label is None:
            continue
        said = written.get(each, Written())
        split = None if place.split is None else split_of[place.split]
        for name, by_folder, by_file in (("split", split, said.split), ("family", place.family, said.family)):
            if by_folder is not None and by_file is not None and by_folder != by_file:
                raise UserError(
                    f"the picture {each} is of the {name} {by_folder} by its folder and {by_file} by the captions file: keep one."
                )
        found[each] = Place(place.label, place.family or said.family, split or said.split)
    family_of = one_family((place.label, place.family, each) for each, place in found.items())
    return {each: Place(place.label, place.label and family_of.get(place.label), place.split) for each, place in found.items()}


def _pictures_at(address: str) -> dict[str, Stored]:
    """As find_pictures, of a folder that is not of this machine: the path relative to it → the picture's object."""
    return {
        name: each
        for name, each in stored_under(address).items()
        if Path(name).suffix.lower().removeprefix(".") in SUFFIXES and name not in captions_file.NAMES
    }


def _log_places(root: Path | str, places: Mapping[str, Place], folders: Sequence[str]) -> None:
    labels = {place.label for place in places.values()} - {None}
    families = {place.family for place in places.values()} - {None}
    given = sum(place.split is not None for place in places.values())
    without = sum(place.label is None for place in places.values())
    logger.info("%s: %d pictures, %d labels, %d without a label", root, len(places), len(labels), without)
    if families or given:
        logger.info("%s: %d families, %d pictures with a given split", root, len(families), given)
    if shallow := [each for each, place in places.items() if place.label is None and "/" in each]:
        logger.warning(
            "%d picture(s) have no label, since they lie in fewer folders than [%s], such as %s",
            len(shallow),
            ", ".join(folders),
            shallow[0],
        )


def class_name_of(label: str | None) -> str:
    """red_panda → red panda; "" without a label."""
    return "" if label is None else " ".join(label.replace("_", " ").replace("-", " ").split()) or label


def find_pictures(root: Path) -> dict[str, str]:
    """Every picture under `root`, itself a link or not: its path relative to `root` → the file, in order of the former.

    Hidden files, those of the system, and other suffixes are left out and counted in the log. UserError for links to folders.
    """
    found: dict[str, str] = {}  # strings: a Path for each of a million files takes seconds
    ignored: Counter[str] = Counter()
    linked: list[Path] = []

    def walk(folder: Path | str, prefix: str) -> None:
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be listed: {error.strerror}. Give read permission, or move it away.") from error
        for entry in entries:
            name = prefix + utf8_name(entry.name)
            _, dot, suffix = entry.name.lower().rpartition(".")
            if is_hidden(entry.name):
                ignored["hidden or of the system"] += 1
            elif entry.is_dir(follow_symlinks=False):
                walk(entry.path, name + "/")
            elif entry.is_symlink() and Path(entry.path).is_dir():  # is_dir of an entry raises for a link to itself
                linked.append(Path(entry.path))
            elif name in captions_file.NAMES:
                pass
            elif dot and suffix in SUFFIXES and (entry.is_symlink() or entry.is_file()):
                found[name] = entry.path
            else:
                ignored["." + suffix if dot and suffix else "without suffix"] += 1
                if not prefix and Path(name).stem.casefold() in ("captions", "metadata"):
                    logger.warning("%s is not read: captions are in %s", entry.path, " or ".join(captions_file.NAMES))

    walk(root, "")
    refuse_linked_folders(root, linked)
    if ignored:
        logger.info("%s: ignored %d file(s): %s", root, ignored.total(), ", ".join(f"{n} {kind}" for kind, n in sorted(ignored.items())))
    return dict(sorted(found.items()))


def utf8_name(name: str) -> str:
    """A file name; bytes that are not UTF-8 are spelt out, because text columns hold UTF-8 only."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
