"""Look at one source image: is it usable, and which bytes of it are kept? rejection.py and nearest.py compare images with each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageChops

from assets.curated_images.nearest import thumbnail
from assets.pictures.decoding import BadPicture, decode, open_picture

JPEG_ABOVE_SIDE = 512  # pixels


@dataclass(frozen=True)
class Usable:
    image: bytes  # what is kept
    width: int  # of the upright picture, pixels
    height: int
    sha256: str  # of the source's bytes
    pixels: bytes  # digest of size and RGB pixels: equal for exact duplicates, whatever their files
    thumbnail: bytes  # nearly equal for copies of another size or file format


def inspect(data: bytes, *, max_pixels: int, min_side: int) -> Usable | BadPicture:
    """Decode an image of the source for good. The bytes kept need nothing more than `Image.open(…).convert("RGB")`."""
    try:
        picture = open_picture(data, max_pixels)
    except BadPicture as bad:
        return bad
    if min(picture.size) < min_side:
        return BadPicture("too_small", f"{picture.width} x {picture.height} pixels; a side needs at least {min_side}")
    digest = hashlib.sha256(f"{picture.width} {picture.height} ".encode() + picture.tobytes()).digest()
    return Usable(kept_bytes(data, picture), *picture.size, hashlib.sha256(data).hexdigest(), digest, thumbnail(picture))


def kept_bytes(data: bytes, picture: Image.Image) -> bytes:
    """The original file where decoding it plainly gives `picture`, else `picture` encoded anew.

    As PNG, without loss; but as JPEG (quality 95, full colour resolution) where the original is a JPEG, such as a photograph that
    only had to be turned upright, with a side above 512 pixels: as PNG it would take many times the space.
    """
    try:
        plain = decode(data)
        if plain.size == picture.size and ImageChops.difference(plain, picture).getbbox() is None:
            return data
    except Exception:  # such as Pillow's ValueError for modes that convert("RGB") refuses
        pass
    encoded = BytesIO()
    if data.startswith(b"\xff\xd8\xff") and max(picture.size) > JPEG_ABOVE_SIDE:
        picture.save(encoded, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(encoded, "PNG")
    return encoded.getvalue()
