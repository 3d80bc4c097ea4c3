"""The pictures of a benchmark on disk: which files, in which order, and which part of each counts.

What a picture shows is the families' concern; turning it into an embedding is the encoder's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from assets.errors import UserError
from assets.pictures.apart import opened
from assets.pictures.decoding import BadPicture

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 200_000_000  # several times the largest picture of ImageNet; what claims more is a decompression bomb


@dataclass(frozen=True)
class Border:
    """Cut off a border of this many pixels on all sides."""

    pixels: int

    def part(self, picture: Image.Image, row: int) -> Image.Image:
        width, height = picture.size
        return picture.crop((self.pixels, self.pixels, width - self.pixels, height - self.pixels))


@dataclass(frozen=True)
class Boxes:
    """Cut out each picture's own box: left, top, right, bottom in pixels."""

    of_rows: tuple[tuple[float, float, float, float], ...]

    def part(self, picture: Image.Image, row: int) -> Image.Image:
        return picture.crop(self.of_rows[row])  # Pillow rounds them, as in the authors' code


Crop = Border | Boxes


@dataclass(frozen=True)
class Pictures:
    """Files below `folder` by their names there, in order, as an encoder takes them; one picture's pixels are read at a time."""

    folder: Path
    names: Sequence[str]
    crop: Crop | None = None

    def digests(self) -> list[bytes]:
        """Of each file's name, size and time of change, and of its crop: millions of pictures are not read twice."""
        found = []
        for row, name in enumerate(self.names):
            file = (self.folder / name).stat()
            crop = self.crop.of_rows[row] if isinstance(self.crop, Boxes) else self.crop
            found.append(hashlib.sha256(f"{MAX_PIXELS}\0{crop!r}\0{name}\0{file.st_size}\0{file.st_mtime_ns}".encode()).digest())
        return found

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> range:
        """Row numbers."""
        return range(len(self.names))

    def open(self, row: int) -> Image.Image:
        """RGB, upright, cropped where the benchmark asks for it. UserError, with the file, for what is not a picture.

        Turned by EXIF as everywhere in this project; published evaluations mostly leave a picture as it is stored, which concerns few.
        """
        path = self.folder / self.names[row]
        try:
            picture = opened(path.read_bytes(), MAX_PIXELS)
        except BadPicture as error:
            raise UserError(f"{path}: {error.detail}. Unpack the benchmark again; its archive may be damaged.") from None
        return picture if self.crop is None else self.crop.part(picture, row)


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
