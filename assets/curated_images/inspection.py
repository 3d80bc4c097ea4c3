"""Look at one source image: is it usable, and which bytes of it are kept? What was found is kept by the image's content.

The workers of an engine look, in processes of their own, see pictures/apart.py. rejection.py, nearest.py and near_duplicates.py compare
images.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple, cast

import PIL
from PIL import Image, ImageChops, features

from assets.curated_images.fingerprint import SIZE, fingerprint
from assets.curated_images.thumbnails import VALUES, thumbnail
from assets.engine import Engine, Work
from assets.imports import imported_files
from assets.kept import Kept, opened
from assets.pictures.apart import Apart, Found
from assets.pictures.decoding import BadPicture, decode
from assets.pictures.opening import Opened, decoders, open_untrusted

JPEG_ABOVE_SIDE = 512  # pixels
DIGEST = 32  # bytes
HEAD = struct.Struct("<III")  # width, height, bytes of the notes
SMALL = HEAD.size + DIGEST  # where the thumbnail begins, the fingerprint, and the notes
PRINTS = SMALL + VALUES
NOTES = PRINTS + SIZE
LOOK = f"{__name__}:inspect_to_bytes"


class Usable(NamedTuple):
    image: bytes | None  # what is kept in place of the source's bytes; None where these are
    width: int  # of the upright picture, pixels
    height: int
    pixels: bytes  # digest of size and RGB pixels: equal for exact duplicates, whatever their files
    thumbnail: bytes  # nearly equal for copies of another size or file format
    fingerprint: bytes  # what near_duplicates compares
    notes: tuple[tuple[str, str], ...] = ()  # a word and a sentence each


def inspections(how: Mapping[str, Any]) -> AbstractContextManager[Kept]:
    """What earlier runs found of images, by the SHA-256 of their bytes, with these settings, this code and these decoders."""
    names = {*features.modules, *features.codecs, *features.features} - {"tkinter"}  # to ask for it loads it
    libraries = {name: features.version(name) for name in names if features.check(name)} | decoders()
    return opened("inspected", {**how, "pillow": PIL.__version__, "decoders": libraries}, imported_files(__name__))


@dataclass(frozen=True)
class Inspector:
    """A worker that looks at images, each in a process of its own; `how` are the settings of `inspect`."""

    how: Mapping[str, Any]
    max_seconds: float

    @contextmanager
    def opened(self) -> Iterator[Work]:
        with self.processes() as processes:
            yield lambda _, images: list(processes.map(images))

    def processes(self) -> Apart:
        return Apart(LOOK, self.how, max_seconds=self.max_seconds)


def inspect_all(
    batches: Iterable[tuple[Sequence[bytes], Sequence[bytes]]], inspector: Inspector, engine: Engine
) -> Iterator[list[Usable | BadPicture]]:
    """`inspect` of each image, a list for each batch; those that are not known are looked at, and are known from then on.

    batches: (images, the SHA-256 of each).
    """
    waiting: deque[tuple[Sequence[bytes], dict[bytes, bytes | BadPicture], list[bytes]]] = deque()

    def unknown(known: Kept) -> Iterator[list[bytes]]:
        for images, digests in batches:
            found: dict[bytes, bytes | BadPicture] = dict(known.get(digests))
            looked_at = waiting[-1][2] if waiting else ()  # in the batch before, which may not be known yet
            new = {digest: data for digest, data in zip(digests, images, strict=True) if digest not in found and digest not in looked_at}
            waiting.append((digests, found, list(new)))
            yield list(new.values())

    before: dict[bytes, bytes | BadPicture] = {}
    with inspections(inspector.how) as known:
        for looked in _looks(inspector, unknown(known), engine):
            digests, found, new = waiting.popleft()
            found |= dict(zip(new, looked, strict=True))
            found |= {digest: before[digest] for digest in digests if digest not in found}
            # what crashed or was too slow may end otherwise on another day: another run tries again
            known.add({digest: each for digest in new if isinstance(each := found[digest], bytes)})
            yield [packed if isinstance(packed := found[digest], BadPicture) else _unpacked(packed) for digest in digests]
            before = found


def _looks(inspector: Inspector, pieces: Iterable[list[bytes]], engine: Engine) -> Iterator[Iterable[Found]]:
    """What is found of each piece. On this machine a piece is looked at while the caller is busy with the one before."""
    if engine.remote:
        yield from engine.map(inspector, pieces)
        return
    with inspector.processes() as processes:
        ahead = None
        for piece in pieces:
            begun = processes.map(piece)
            if ahead is not None:
                yield ahead
            ahead = begun
        if ahead is not None:
            yield ahead


def inspect_to_bytes(data: bytes, **how: Any) -> bytes:
    """What `inspect` finds, as bytes: HEAD, then the digest of the pixels, the thumbnail, the fingerprint, the notes as JSON, and the bytes
    that are kept where they are not the image's own. A width of zero stands before the reason and detail of a BadPicture, as JSON."""
    found = inspect(data, **how)
    if isinstance(found, BadPicture):
        return HEAD.pack(0, 0, 0) + json.dumps([found.reason, found.detail]).encode()
    notes = json.dumps(found.notes).encode() if found.notes else b""
    head = HEAD.pack(found.width, found.height, len(notes))
    return b"".join((head, found.pixels, found.thumbnail, found.fingerprint, notes, found.image or b""))


def _unpacked(packed: bytes) -> Usable | BadPicture:
    width, height, length = HEAD.unpack_from(packed)
    if not width:
        return BadPicture(*json.loads(packed[HEAD.size :]))
    notes = packed[NOTES : NOTES + length]
    said = tuple((note, detail) for note, detail in json.loads(notes)) if notes else ()
    image = packed[NOTES + length :] or None
    return Usable(image, width, height, packed[HEAD.size : SMALL], packed[SMALL:PRINTS], packed[PRINTS:NOTES], said)


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
    small = thumbnail(picture)
    if blank_range is not None and _is_blank(picture, small, blank_range):
        return BadPicture("blank", f"it shows nothing: no channel's brightest and darkest pixel differ by more than {blank_range} of 255")
    digest = hashlib.sha256(f"{picture.width} {picture.height} ".encode() + picture.tobytes()).digest()
    image = None if opened_picture.plain else kept_bytes(data, opened_picture)
    prints = fingerprint(picture) if fingerprints else bytes(SIZE)
    return Usable(image, *picture.size, digest, small, prints, opened_picture.notes)


def _is_blank(picture: Image.Image, small: bytes, blank_range: int) -> bool:
    red = small[::3]
    if max(red) - min(red) > blank_range:  # these are means of the picture's own pixels, which differ by no less
        return False
    return all(high - low <= blank_range for low, high in cast(tuple[tuple[int, int], ...], picture.getextrema()))


def kept_bytes(data: bytes, found: Opened) -> bytes | None:
    """None where decoding the original file plainly gives the same picture, else the picture encoded anew.

    As PNG, without loss; but as JPEG (quality 95, full colour resolution) where the original is of such a format, as a photograph that
    only had to be turned upright, with a side above 512 pixels: as PNG it would take many times the space.
    """
    picture = found.picture
    try:
        plain = decode(data)
        if plain.size == picture.size and ImageChops.difference(plain, picture).getbbox() is None:
            return None
    except Exception:  # a format that curated bytes never have; Pillow's ValueError for modes that convert("RGB") refuses
        pass
    encoded = BytesIO()
    if found.photograph and max(picture.size) > JPEG_ABOVE_SIDE:
        picture.save(encoded, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(encoded, "PNG")
    return encoded.getvalue()
