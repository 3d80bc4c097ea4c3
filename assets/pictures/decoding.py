"""Bytes to pixels: the one decoder of the project, for training, embedding and queries. Resizing is the model's preprocessing.

Curated bytes are opened by `decode`; bytes from anywhere else by `open_picture`, which trusts nothing in them.
"""

from __future__ import annotations

import contextlib
import struct
from io import BytesIO
from typing import cast

from PIL import ExifTags, Image, ImageOps

# Nothing else is tried: Pillow's other formats are rare, and some start programs (PostScript) or read other files.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
WHITE = (255, 255, 255)


class BadPicture(Exception):
    """A picture that cannot be used. `reason` is "undecodable" or "too_large", `detail` a sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode(data: bytes, enough: int | None = None) -> Image.Image:
    """Curated bytes → RGB. The same pixels as `Image.open(BytesIO(data)).convert("RGB")`, without a limit on the number of pixels.

    `enough`: both sides need not have more pixels than this. A large JPEG is then decoded, much faster, at a half, a quarter or an eighth.
    """
    picture = _open(data)
    if enough is not None:
        picture.draft("RGB", (enough, enough))
    return picture.convert("RGB")


def open_picture(data: bytes, max_pixels: int) -> Image.Image:
    """Untrusted bytes → RGB, upright by EXIF, transparency on white, more than 8 bits rescaled to 8, the first frame only.

    Raises BadPicture, and nothing else, for bytes that are no picture, break off, or claim more than `max_pixels` pixels; the claim is
    read from the header, before memory is taken for the pixels.
    """
    return open_untrusted(data, max_pixels)[0]


def open_untrusted(data: bytes, max_pixels: int) -> tuple[Image.Image, bool]:
    """(what `open_picture` gives; whether `decode` is known to give the same: nothing had to be turned, laid on white or rescaled)."""
    try:
        return _open_picture(data, max_pixels)
    except BadPicture:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # a frame or tile larger than its picture
        raise BadPicture("too_large", _describe(error)) from error
    except Exception as error:  # Pillow's decoders raise whatever a hostile file leads them to: OSError, ValueError, struct.error, …
        raise BadPicture("undecodable", f"cannot be decoded: {_describe(error)}") from error


def _open_picture(data: bytes, max_pixels: int) -> tuple[Image.Image, bool]:
    if not data:
        raise BadPicture("undecodable", "no bytes: the file is empty, or could not be read")
    picture = _open(data)
    width, height = picture.size
    if width * height > max_pixels:
        raise BadPicture("too_large", f"{width} x {height} pixels, more than the {max_pixels:,} allowed")
    picture.load()
    plain = False
    with contextlib.suppress(Exception):  # unreadable EXIF: the pixels are good, and viewers show them as they lie
        plain = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture, plain = _to_8_bits(picture), False
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        flat = Image.new("RGB", picture.size, WHITE)
        flat.paste(with_alpha, mask=with_alpha.getchannel("A"))
        return flat, False
    return picture.convert("RGB"), plain


def _open(data: bytes) -> Image.Image:
    """Read the header. `Image.open` without its check against one process-wide number of pixels, which callers here set themselves."""
    Image.init()
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(data[:16]) is True:
            try:
                return factory(BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:  # what Image.open takes for "not this format"
                raise BadPicture("undecodable", f"not a readable {name} file: {_describe(error)}") from error
    raise BadPicture("undecodable", f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file: it begins with {data[:8]!r}")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits to 0…255; Pillow's own conversion clips them, which turns most such pictures white.

    16-bit values have a fixed range. 32-bit integers are taken for 16-bit values when they fit, and floating-point values for
    fractions of white when they lie in 0…1; any other picture is stretched from its smallest to its largest value.
    """
    if picture.mode.startswith("I;"):  # getextrema and point know only some of these modes
        picture = picture.convert("I")
    low, high = cast(tuple[float, float], picture.getextrema())
    if not (float("-inf") < low <= high < float("inf")):
        raise BadPicture("undecodable", "its floating-point pixels are not all finite")
    if picture.mode == "F":
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    elif low >= 0 and high <= 65535:
        low, high = 0, 65535
    scale = 255 / (high - low) if high > low else 0.0
    return picture.convert("F").point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
