"""Look at one source image: is it usable, and which bytes of it are kept? What was found is kept by the image's content.

The workers of an engine look, in processes of their own, see pictures/apart.py. rejection.py, nearest.py and near_duplicates.py compare
images.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, cast

import PIL
from PIL import Image, ImageChops, features

from assets.curated_images.fingerprint import SIZE, fingerprint
from assets.curated_images.thumbnails import thumbnail
from assets.engine import Engine, Work
from assets.imports import imported_files
from assets.kept import Kept, opened
from assets.pictures.apart import Apart
from assets.pictures.decoding import BadPicture, decode
from assets.pictures.opening import Opened, decoders, open_untrusted

JPEG_ABOVE_SIDE = 512  # pixels
LOOK = f"{__name__}:inspect_to_bytes"


@dataclass(frozen=True)
class Usable:
    image: bytes  # what is kept
    width: int  # of the upright picture, pixels
    height: int
    sha256: str  # of the source's bytes
    pixels: bytes  # digest of size and RGB pixels: equal for exact duplicates, whatever their files
    thumbnail: bytes  # nearly equal for copies of another size or file format
    fingerprint: bytes  # what near_duplicates compares
    notes: tuple[tuple[str, str], ...] = field(default=())  # a word and a sentence each


def inspections(how: Mapping[str, Any]) -> AbstractContextManager[Kept]:
    """What earlier runs found of images, by the SHA-256 of their bytes, with these settings, this code and these decoders."""
    libraries = {name: features.version(name) for name in features.get_supported()} | decoders()
    return opened("inspected", {**how, "pillow": PIL.__version__, "decoders": libraries}, imported_files(__name__))


@dataclass(frozen=True)
class Inspector:
    """A worker that looks at images, each in a process of its own; `how` are the settings of `inspect`."""

    how: Mapping[str, Any]
    max_seconds: float

    @contextmanager
    def opened(self) -> Iterator[Work]:
        with Apart(LOOK, self.how, max_seconds=self.max_seconds) as apart:
            yield lambda _, images: list(apart.map(images))


def inspect_all(batches: Iterable[Sequence[bytes]], inspector: Inspector, engine: Engine) -> Iterator[list[Usable | BadPicture]]:
    """`inspect` of each image, a list for each batch; those that are not known are looked at, and are known from then on."""
    waiting: deque[tuple[Sequence[bytes], list[bytes], dict[bytes, bytes | BadPicture], list[bytes]]] = deque()

    def unknown(known: Kept) -> Iterator[list[bytes]]:
        for images in batches:
            digests = [hashlib.sha256(data).digest() for data in images]
            found: dict[bytes, bytes | BadPicture] = dict(known.get(digests))
            new = {digest: data for digest, data in zip(digests, images, strict=True) if digest not in found}
            waiting.append((images, digests, found, list(new)))
            yield list(new.values())

    with inspections(inspector.how) as known:
        for looked in engine.map(inspector, unknown(known)):
            images, digests, found, new = waiting.popleft()
            found |= dict(zip(new, looked, strict=True))
            # what crashed or was too slow may end otherwise on another day: another run tries again
            known.add({digest: each for digest in new if isinstance(each := found[digest], bytes)})
            yield [
                packed if isinstance(packed := found[digest], BadPicture) else _unpacked(data, digest, packed)
                for data, digest in zip(images, digests, strict=True)
            ]


def inspect_to_bytes(data: bytes, **how: Any) -> bytes:
    """What `inspect` finds, as bytes: a line of JSON, then the digest of the pixels, the thumbnail, the fingerprint, and the kept bytes
    where they are not the image's own."""
    found = inspect(data, **how)
    if isinstance(found, BadPicture):
        return json.dumps({"reason": found.reason, "detail": found.detail}).encode() + b"\n"
    anew = found.image is not data
    parts = (found.pixels, found.thumbnail, found.fingerprint, found.image if anew else b"")
    head = {"size": [found.width, found.height], "anew": anew, "cut": [len(part) for part in parts], "notes": found.notes}
    return json.dumps(head).encode() + b"\n" + b"".join(parts)


def _unpacked(data: bytes, digest: bytes, packed: bytes) -> Usable | BadPicture:
    line, _, rest = packed.partition(b"\n")
    head = json.loads(line)
    if "reason" in head:
        return BadPicture(head["reason"], head["detail"])
    parts = []
    for size in head["cut"]:
        parts.append(rest[:size])
        rest = rest[size:]
    pixels, small, prints, image = parts
    width, height = head["size"]
    notes = tuple((note, detail) for note, detail in head["notes"])
    return Usable(image if head["anew"] else data, width, height, digest.hex(), pixels, small, prints, notes)


def inspect(
    data: bytes,
    *,
    max_pixels: int,
    min_side: int,
    max_aspect_ratio: float | None = None,
    blank_range: int | None = None,
    fingerprints: bool = True,
) -> Usable | BadPicture:
    """Decode an image of the source for good. The bytes kept need nothing more than `Image.open(…).convert("RGB")`."""
    try:
        opened_picture = open_untrusted(data, max_pixels)
    except BadPicture as bad:
        return bad
    picture = opened_picture.picture
    size = f"{picture.width} x {picture.height} pixels"
    if min(picture.size) < min_side:
        return BadPicture("too_small", f"{size}; a side needs at least {min_side}")
    if max_aspect_ratio is not None and max(picture.size) > max_aspect_ratio * min(picture.size):
        return BadPicture("too_long", f"{size}; one side may be {max_aspect_ratio:g} times the other")
    if blank_range is not None and _is_blank(picture, blank_range):
        return BadPicture("blank", f"it shows nothing: no channel's brightest and darkest pixel differ by more than {blank_range} of 255")
    digest = hashlib.sha256(f"{picture.width} {picture.height} ".encode() + picture.tobytes()).digest()
    image = data if opened_picture.plain else kept_bytes(data, opened_picture)
    sha256 = hashlib.sha256(data).hexdigest()
    prints = fingerprint(picture) if fingerprints else bytes(SIZE)
    return Usable(image, *picture.size, sha256, digest, thumbnail(picture), prints, opened_picture.notes)


def _is_blank(picture: Image.Image, blank_range: int) -> bool:
    bands = [cast(tuple[int, int], channel.getextrema()) for channel in picture.split()]
    return all(high - low <= blank_range for low, high in bands)


def kept_bytes(data: bytes, found: Opened) -> bytes:
    """The original file where decoding it plainly gives the same picture, else the picture encoded anew.

    As PNG, without loss; but as JPEG (quality 95, full colour resolution) where the original is of such a format, as a photograph that
    only had to be turned upright, with a side above 512 pixels: as PNG it would take many times the space.
    """
    picture = found.picture
    try:
        plain = decode(data)
        if plain.size == picture.size and ImageChops.difference(plain, picture).getbbox() is None:
            return data
    except Exception:  # a format that curated bytes never have; Pillow's ValueError for modes that convert("RGB") refuses
        pass
    encoded = BytesIO()
    if found.photograph and max(picture.size) > JPEG_ABOVE_SIDE:
        picture.save(encoded, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(encoded, "PNG")
    return encoded.getvalue()
