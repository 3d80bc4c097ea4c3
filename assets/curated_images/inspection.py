"""Look at one source image: is it usable, and which bytes of it are kept? What was found is kept by the image's content.

rejection.py and nearest.py compare images with each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO

import PIL
from PIL import Image, ImageChops, features

from assets.curated_images.thumbnails import thumbnail
from assets.imports import imported_files
from assets.kept import Kept, opened
from assets.pictures.decoding import BadPicture, decode, open_untrusted

JPEG_ABOVE_SIDE = 512  # pixels


@dataclass(frozen=True)
class Usable:
    image: bytes  # what is kept
    width: int  # of the upright picture, pixels
    height: int
    sha256: str  # of the source's bytes
    pixels: bytes  # digest of size and RGB pixels: equal for exact duplicates, whatever their files
    thumbnail: bytes  # nearly equal for copies of another size or file format


def inspections(*, max_pixels: int, min_side: int) -> AbstractContextManager[Kept]:
    """What earlier runs found of images, by the SHA-256 of their bytes, with these settings, this code and these decoders."""
    decoders = {name: features.version(name) for name in features.get_supported()}
    determined_by = {"max_pixels": max_pixels, "min_side": min_side, "pillow": PIL.__version__, "decoders": decoders}
    return opened("inspected", determined_by, imported_files(__name__))


def inspect_all(images: Sequence[bytes], known: Kept, pool: Executor, *, max_pixels: int, min_side: int) -> list[Usable | BadPicture]:
    """`inspect` of each; those that are not known are looked at in the pool, and are known from then on."""
    digests = list(pool.map(lambda data: hashlib.sha256(data).digest(), images))
    found = known.get(digests)
    new = {digest: data for digest, data in zip(digests, images, strict=True) if digest not in found}
    looked = pool.map(lambda data: _packed(data, inspect(data, max_pixels=max_pixels, min_side=min_side)), new.values())
    added = dict(zip(new, looked, strict=True))
    known.add(added)
    found |= added
    return [_unpacked(data, digest, found[digest]) for data, digest in zip(images, digests, strict=True)]


def _packed(data: bytes, found: Usable | BadPicture) -> bytes:
    """A line of JSON, then the digest of the pixels, the thumbnail, and the kept bytes where they are not the image's own."""
    if isinstance(found, BadPicture):
        return json.dumps({"reason": found.reason, "detail": found.detail}).encode() + b"\n"
    anew = found.image is not data
    head = {"size": [found.width, found.height], "anew": anew, "cut": [len(found.pixels), len(found.thumbnail)]}
    return json.dumps(head).encode() + b"\n" + found.pixels + found.thumbnail + (found.image if anew else b"")


def _unpacked(data: bytes, digest: bytes, packed: bytes) -> Usable | BadPicture:
    line, _, rest = packed.partition(b"\n")
    head = json.loads(line)
    if "reason" in head:
        return BadPicture(head["reason"], head["detail"])
    first, second = head["cut"][0], sum(head["cut"])
    image = rest[second:] if head["anew"] else data
    width, height = head["size"]
    return Usable(image, width, height, digest.hex(), rest[:first], rest[first:second])


def inspect(data: bytes, *, max_pixels: int, min_side: int) -> Usable | BadPicture:
    """Decode an image of the source for good. The bytes kept need nothing more than `Image.open(…).convert("RGB")`."""
    try:
        picture, plain = open_untrusted(data, max_pixels)
    except BadPicture as bad:
        return bad
    if min(picture.size) < min_side:
        return BadPicture("too_small", f"{picture.width} x {picture.height} pixels; a side needs at least {min_side}")
    digest = hashlib.sha256(f"{picture.width} {picture.height} ".encode() + picture.tobytes()).digest()
    image = data if plain else kept_bytes(data, picture)
    return Usable(image, *picture.size, hashlib.sha256(data).hexdigest(), digest, thumbnail(picture))


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
