"""The pictures of a benchmark as they lie on the disk: which files, in which order, and what of each counts.

What a picture shows is the families' concern; turning it into an embedding the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from assets.errors import UserError
from assets.pictures.decoding import BadPicture, open_picture

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 200_000_000  # several times the largest picture of ImageNet; what claims more is a decompression bomb

Crop = Callable[[Image.Image, int], Image.Image]  # (picture, its row) → the part that counts


@dataclass(frozen=True)
class Pictures:
    """Files below `folder` by their names there, in order; pixels are read one picture at a time, by `read_picture`."""

    folder: Path
    names: Sequence[str]
    crop: Crop | None = None

    def __len__(self) -> int:
        return len(self.names)


def read_picture(pictures: Pictures, row: int) -> Image.Image:
    """RGB, upright, cropped where the benchmark says so. UserError, with the file, for what is no picture.

    Turned by EXIF as everywhere in this project; published evaluations mostly leave a picture as it is stored, which concerns few.
    """
    path = pictures.folder / pictures.names[row]
    try:
        picture = open_picture(path.read_bytes(), MAX_PIXELS)
    except BadPicture as error:
        raise UserError(f"{path}: {error.detail}. Unpack the benchmark again; its archive may be damaged.") from None
    return picture if pictures.crop is None else pictures.crop(picture, row)


def unpacked(root: Path, inner: str, holds: str) -> Path:
    """The folder `inner` that the official archive unpacks into `root`; `root` itself where its content lies there without it."""
    return root if (root / holds).exists() else root / inner


def required(path: Path) -> Path:
    """`path`, which must exist."""
    if not path.exists():
        raise UserError(f"{path} is missing.")
    return path


def listed(folder: Path, names: Sequence[str], crop: Crop | None = None) -> Pictures:
    """The pictures that a benchmark's list names; UserError names the first one that is not there."""
    for name in names:
        required(folder / name)
    return Pictures(folder, names, crop)


def in_class_folders(folder: Path, classes: Iterable[str], crop: Crop | None = None) -> tuple[Pictures, np.ndarray]:
    """The pictures of `folder`/<class>/, sorted within each class, and int64 [N], the number of each picture's class in `classes`."""
    names: list[str] = []
    numbers: list[int] = []
    for number, name in enumerate(classes):
        own = sorted(file.name for file in required(folder / name).iterdir() if is_picture(file))
        if not own:
            raise UserError(f"{folder / name} holds no picture ({', '.join(SUFFIXES)}).")
        names += [f"{name}/{each}" for each in own]
        numbers += [number] * len(own)
    return Pictures(folder, names, crop), np.array(numbers, np.int64)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted; hidden ones are not counted."""
    return sorted(each.name for each in required(folder).iterdir() if each.is_dir() and not each.name.startswith("."))


def is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
