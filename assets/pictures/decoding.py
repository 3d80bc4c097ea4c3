"""Curated bytes to pixels, for training, embedding and showing. Bytes from anywhere else are opening.py's. Resizing is the model's."""

from __future__ import annotations

import struct
from io import BytesIO

from PIL import Image

# What curated bytes may be. Pillow's other formats are rare, and some start programs (PostScript) or read other files.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")


class BadPicture(Exception):
    """A picture that cannot be used. `reason` is a word such as "undecodable" or "too_large", `detail` a sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode(data: bytes, enough: int | None = None) -> Image.Image:
    """Curated bytes → RGB. The same pixels as `Image.open(BytesIO(data)).convert("RGB")`, without a limit on the number of pixels.

    `enough`: both sides need not have more pixels than this. A large JPEG is then decoded, much faster, at a half, a quarter or an eighth.
    """
    picture = read_header(data)
    if enough is not None:
        picture.draft("RGB", (enough, enough))
    return picture.convert("RGB")


def read_header(data: bytes) -> Image.Image:
    """A picture whose pixels are not decoded yet. `Image.open` without its check against one process-wide number of pixels.

    BadPicture where `data` is none of FORMATS, or its header is broken.
    """
    Image.init()
    for name in FORMATS:
        accept = Image.OPEN[name][1]
        if accept is not None and accept(data[:16]) is True:
            return read_header_as(name, data)
    raise BadPicture("undecodable", f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file: it begins with {data[:8]!r}")


def read_header_as(name: str, data: bytes) -> Image.Image:
    """The same of one of Pillow's formats."""
    try:
        return Image.OPEN[name][0](BytesIO(data), "")
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # what Image.open takes for "not this format"
        raise BadPicture("undecodable", f"not a readable {name} file: {describe(error)}") from error


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
