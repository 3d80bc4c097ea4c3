"""Pictures of queries, of whatever kind they are given, made upright and RGB by the same rules as the library's pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from assets.errors import UserError
from assets.pictures.apart import opened
from assets.pictures.decoding import BadPicture


@dataclass(frozen=True)
class QueryPictures:
    """Pictures of queries, RGB, as an encoder takes them."""

    pictures: Sequence[Image.Image]

    def digests(self) -> list[bytes]:
        """Of the pixels."""
        return [hashlib.sha256(f"{picture.size}\0".encode() + picture.tobytes()).digest() for picture in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def items(self) -> Sequence[Image.Image]:
        return self.pictures

    def open(self, item: Image.Image) -> Image.Image:
        return item


def read_picture(query: Any, max_pixels: int) -> Image.Image:
    """RGB. UserError for what is no picture, cannot be read, or has more pixels."""
    name = "the picture"
    try:
        if isinstance(query, Path):
            name = str(query)
            data = query.read_bytes()
        elif isinstance(query, bytes):
            data = query
        elif isinstance(query, Image.Image):
            data = _encoded(ImageOps.exif_transpose(query))
        else:
            raise UserError(f"a query is text (str) or a picture (pathlib.Path, bytes, PIL.Image); given {type(query).__name__}.")
        return opened(data, max_pixels)
    except BadPicture as error:
        raise UserError(f"{name} is {error.reason}: {error.detail}. Give a picture that opens, such as a PNG or JPEG file.") from error
    except (OSError, ValueError) as error:  # an absent file; a PIL.Image that is closed or breaks off
        raise UserError(f"{name} cannot be read: {error}. Give the path of a picture file.") from error


def _encoded(image: Image.Image) -> bytes:
    """The same pixels as a file, so that pictures in memory take the way of all others."""
    buffer = io.BytesIO()
    if image.mode[0] in "IF":  # more than 8 bits, whatever the byte order
        image.save(buffer, "TIFF")
    elif image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
