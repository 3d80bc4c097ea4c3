"""Small copies of pictures, by which pictures are compared: 16 × 16 pixels, kept in a file. Comparing them is nearest.py's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16  # pixels of a thumbnail
VALUES = 3 * SIDE * SIDE
DENSE = 4  # of so many rows that lie side by side at least one is wanted: then all are read at once


class Thumbnails:
    """Rows of a file of thumbnails, read as they are asked for: uint8 [N, 768], as an array that does not fit into memory."""

    def __init__(self, file: Path, rows: np.ndarray) -> None:
        """`rows`: int64 [N], ascending."""
        self.file = file
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        rows = self.rows[wanted]
        if not len(rows):
            return np.zeros((0, VALUES), np.uint8)
        first, last = int(rows[0]), int(rows[-1])
        if (np.diff(rows) > 0).all() and last - first < DENSE * len(rows):  # side by side but for those of other splits
            read = np.fromfile(self.file, np.uint8, (last - first + 1) * VALUES, offset=first * VALUES)
            return read.reshape(-1, VALUES)[rows - first]
        with self.file.open("rb", buffering=0) as file:
            scattered = b"".join(os.pread(file.fileno(), VALUES, row * VALUES) for row in rows.tolist())
        return np.frombuffer(scattered, np.uint8).reshape(-1, VALUES)


class Mirrored:
    """Thumbnails as they are seen in a mirror."""

    def __init__(self, pictures: Thumbnails) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        found = self.pictures[wanted].reshape(-1, SIDE, SIDE, 3)
        return np.ascontiguousarray(found[:, :, ::-1]).reshape(-1, VALUES)


Gallery = np.ndarray | Thumbnails | Mirrored


def thumbnail(picture: Image.Image) -> bytes:
    """An RGB picture squeezed to 16 × 16 pixels: nearly the same for its copies of another size or file format."""
    return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0).tobytes()
