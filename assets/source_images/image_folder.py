"""The user's own pictures, root/<label>/…, as rows. Whether a file is a usable picture is curated_images' concern."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assets.errors import UserError
from assets.progress import track
from assets.source_images import captions_file

logger = logging.getLogger(__name__)

SUFFIXES = ("jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff")
MAX_FILE_BYTES = 1 << 30  # an Arrow binary column holds less than 2 GiB at a time
LAYOUT = f"Put pictures ({', '.join(SUFFIXES)}) into {{root}}/<label>/, or straight into {{root}} to be searched only."


def read_image_folder(root: Path, license: str, attribution: str) -> Iterator[dict[str, Any]]:
    """Rows of IMAGES_SCHEMA in order of id, the path relative to `root`.

    The label is the first folder under `root`, however deep the file lies in it; files directly in `root` have none. Files are read as
    they are. One that cannot be read becomes a row without bytes, so that curated_images counts and rejects it like any broken picture.
    """
    layout = LAYOUT.format(root=root)
    if not root.is_dir():
        raise UserError(f"source_images.sources[0].root: {root} is {'not a folder' if root.exists() else 'missing'}. {layout}")
    files = find_pictures(root)
    if not files:
        raise UserError(f"source_images.sources[0].root: {root} holds no pictures. {layout}")
    captions = captions_file.read_captions(root, list(files))
    labels = Counter(label_of(each) for each in files)
    logger.info("%s: %d pictures, %d labels, %d without a label", root, len(files), len(labels) - (None in labels), labels[None])
    for each, file in track(files.items(), total=len(files), what="reading pictures", unit="images"):
        label = label_of(each)
        yield {
            "id": each,
            "image": _read(file),
            "label": label,
            "class_name": class_name_of(label),
            "group": None,
            "family": None,
            "given_split": None,
            "captions": captions.get(each, []),
            "source": "image_folder",
            "license": license,
            "attribution": attribution,
        }


def label_of(picture: str) -> str | None:
    label, slash, _ = picture.partition("/")
    return label if slash else None


def class_name_of(label: str | None) -> str:
    """red_panda → red panda; "" without a label."""
    return "" if label is None else " ".join(label.replace("_", " ").replace("-", " ").split()) or label


def find_pictures(root: Path) -> dict[str, Path]:
    """Every picture under `root`: its path relative to `root` → the file, in order of the former. Links are followed, never in circles.

    Hidden files and other suffixes are left out and counted in the log.
    """
    found: dict[str, Path] = {}
    ignored: Counter[str] = Counter()

    def walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            here = (folder.stat().st_dev, folder.stat().st_ino)
            entries = list(os.scandir(folder))
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be listed: {error.strerror}. Give read permission, or move it away.") from error
        if here in above:
            return
        for entry in entries:
            name = prefix + _text(entry.name)
            suffix = Path(entry.name).suffix.lower().removeprefix(".")
            if entry.name.startswith("."):
                ignored["hidden"] += 1
            elif entry.is_dir():
                walk(Path(entry.path), name + "/", above | {here})
            elif name in captions_file.NAMES:
                pass
            elif suffix in SUFFIXES and (entry.is_file() or entry.is_symlink()):
                found[name] = Path(entry.path)
            else:
                ignored["." + suffix if suffix else "without suffix"] += 1

    walk(root, "", frozenset())
    if ignored:
        logger.info("%s: ignored %d file(s): %s", root, ignored.total(), ", ".join(f"{n} {kind}" for kind, n in sorted(ignored.items())))
    return dict(sorted(found.items()))


def _text(name: str) -> str:
    """A file name; bytes that are not UTF-8 are spelt out, because text columns hold UTF-8 only."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(file: Path) -> bytes:
    try:
        if (size := file.stat().st_size) > MAX_FILE_BYTES:
            logger.warning("%s: not read, its %d bytes are more than %d", file, size, MAX_FILE_BYTES)
            return b""
        return file.read_bytes()
    except OSError as error:
        logger.warning("%s: cannot be read (%s)", file, error.strerror)
        return b""
