"""Bytes from anywhere to RGB: the one way for curation, queries and benchmarks. It trusts nothing in them but runs in this process.

apart.py calls it in another process, where a decoder may crash. Curated bytes are opened by decoding.py.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import cast

import numpy as np
from PIL import ExifTags, Image, ImageOps

from assets.pictures.colour import BrokenProfile, to_srgb
from assets.pictures.decoding import FORMATS, BadPicture, describe, read_header, read_header_as
from assets.pictures.jpeg_xl import jpeg_xl_size

WHITE = (255, 255, 255)
PHOTOGRAPHS = ("JPEG", "MPO", "AVIF", "HEIF", "JXL")  # formats that lose a little, as JPEG does

# Read, and kept as something else: few programs read them, and slowly.
AVIF, HEIF, JPEG_XL = "AVIF", "HEIF", "JXL"
PACKAGES = {HEIF: ("pillow_heif", "pillow-heif"), JPEG_XL: ("pillow_jxl", "pillow-jxl-plugin")}
NAMES = {AVIF: "AVIF", HEIF: "HEIC", JPEG_XL: "JPEG XL"}

# What people have in folders of pictures and this project does not read: what it begins with → what it is, and the way out.
OTHERS = (
    (
        rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(?>(<!--.*?-->\s*)*)(<!DOCTYPE svg.*?>\s*)?<svg\b",  # (?>: many comments cost no more
        "an SVG drawing. Save it as PNG in the size that it should have",
    ),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file, which is a program. Save it as PNG"),
    (rb"%PDF", "a PDF document. Save its pages as PNG"),
    (rb"8BPS", "a Photoshop file. Save it as PNG or JPEG"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 file. Save it as PNG or JPEG"),
    (rb"\x00\x00[\x01\x02]\x00", "an icon file (.ico, .cur). Save it as PNG"),
    (rb"gimp xcf", "a GIMP file. Save it as PNG"),
    (rb"....ftyp(mp4|isom|iso2|qt  |M4V|avc1|3gp)|\x1aE\xdf\xa3|RIFF....AVI ", "a video. Save the frames that should be found"),
    (rb"P[1-7]\s", "a netpbm file (.ppm, .pgm). Save it as PNG"),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf", "an archive. Unpack it"),
)
TEXT = re.compile(rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)


@dataclass(frozen=True)
class Opened:
    """A picture, RGB and upright."""

    picture: Image.Image
    plain: bool  # `decode` is known to give the same: nothing had to be turned, laid on white, rescaled or converted
    photograph: bool  # the file is of a format that loses a little
    notes: tuple[tuple[str, str], ...] = field(default=())  # what a person may want to know: a word and a sentence each


def open_picture(data: bytes, max_pixels: int) -> Image.Image:
    """Untrusted bytes → RGB, upright by EXIF, in sRGB, transparency on white, more than 8 bits rescaled to 8, the first frame only.

    Raises BadPicture, and nothing else, for bytes that are no picture, break off, or claim more than `max_pixels` pixels; the claim is
    read from the header, before memory is taken for the pixels.
    """
    return open_untrusted(data, max_pixels).picture


def open_untrusted(data: bytes, max_pixels: int) -> Opened:
    """What `open_picture` gives, and what is known of it."""
    try:
        return _open_picture(data, max_pixels)
    except BadPicture:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:  # a frame or tile larger than its picture
        raise BadPicture("too_large", describe(error)) from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever a hostile file leads a decoder to: OSError, ValueError, struct.error, a panic of Rust's, …
        raise BadPicture("undecodable", f"cannot be decoded: {describe(error)}") from error


def decoders() -> dict[str, str | None]:
    """The versions of the packages that read more formats; None where one is missing."""
    found: dict[str, str | None] = {}
    for _, package in PACKAGES.values():
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _open_picture(data: bytes, max_pixels: int) -> Opened:
    if not data:
        raise BadPicture("undecodable", "no bytes: the file is empty, or could not be read")
    picture = _any_header(data, max_pixels)
    kind = picture.format or ""
    _check_size(picture.size, max_pixels)
    notes = list(_several_frames(data, picture, kind))
    profile = picture.info.get("icc_profile") or None
    picture.load()
    _check_size(picture.size, max_pixels)  # some decoders learn it late
    plain = False
    with contextlib.suppress(Exception):  # unreadable EXIF: the pixels are good, and viewers show them as they lie
        plain = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I") or picture.mode == "F":
        clear = picture.info.get("transparency")  # a grey value of the file, so it is sought before values are scaled
        hidden = np.asarray(picture) == clear if isinstance(clear, int) else None
        white_is_zero = kind == "TIFF" and getattr(picture, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0
        picture, plain = _to_8_bits(picture), False
        picture.info.pop("transparency", None)
        if white_is_zero:  # Pillow turns pictures of 8 bits alone
            picture = ImageOps.invert(picture)
        if hidden is not None:
            picture.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    if picture.mode == "La":
        picture = picture.convert("LA")
    try:
        in_srgb = to_srgb(picture, profile)
        plain = plain and in_srgb is picture
        picture = in_srgb
    except BrokenProfile as broken:
        if picture.mode == "LAB":
            raise BadPicture("undecodable", f"{broken}, and its colours mean nothing without it") from broken
        notes.append(("profile_ignored", f"{broken}; its colours are taken for sRGB"))
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        flat, plain = Image.new("RGB", picture.size, WHITE), False
        flat.paste(with_alpha, mask=with_alpha.getchannel("A"))
    else:
        flat = picture.convert("RGB")
    flat.info = {}  # nothing of the file's is written into another: profile, transparent colour
    return Opened(flat, plain and kind in (*FORMATS, "MPO"), kind in PHOTOGRAPHS, tuple(notes))


def _any_header(data: bytes, max_pixels: int) -> Image.Image:
    """Of one of FORMATS, or of a format that is kept as another."""
    kind = _newer_format(data)
    if kind is None:
        return _header(data)
    if kind in PACKAGES and not _registered(kind):
        package = PACKAGES[kind][1]
        raise BadPicture("unsupported", f"{NAMES[kind]}, which is read with the package {package}: `.venv/bin/pip install {package}`")
    if kind == AVIF and kind not in _opened():
        raise BadPicture("unsupported", "AVIF, which this build of Pillow does not read. Pillow's own wheels do: install one from PyPI")
    if kind == JPEG_XL:  # its plugin decodes the pixels as soon as it is called
        _check_size(jpeg_xl_size(data), max_pixels)
    try:
        return read_header_as(kind, data)
    except BadPicture as bad:
        raise BadPicture(bad.reason, bad.detail.replace(f"{kind} file", f"{NAMES[kind]} file")) from bad


def _opened() -> dict[str, object]:
    Image.init()
    return cast(dict[str, object], Image.OPEN)


def _header(data: bytes) -> Image.Image:
    try:
        return read_header(data)
    except BadPicture as bad:
        if not bad.detail.startswith("not a JPEG, "):  # it is one of FORMATS, and broken
            raise
        for begins, what in OTHERS:
            if re.match(begins, data[:4096], re.DOTALL):
                raise BadPicture("unsupported", what) from None
        if TEXT.match(data[:1024]):
            raise BadPicture("undecodable", "a web page, as of a download that failed. Download the picture again") from None
        if not data.strip(b"\0"):
            raise BadPicture(
                "undecodable", "nothing but zeros, as a disk or a transfer that failed leaves them. Copy the file again"
            ) from None
        raise


def _newer_format(data: bytes) -> str | None:
    if data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return JPEG_XL
    if data[4:8] != b"ftyp":
        return None
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4]), 256), 4))}
    if brands & {b"avif", b"avis"}:
        return AVIF
    return HEIF if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"} else None


@lru_cache(maxsize=8)
def _registered(kind: str) -> bool:
    """Whether the package that reads this format is there; Pillow knows it from then on."""
    try:
        module = importlib.import_module(PACKAGES[kind][0])
    except ImportError:
        return False
    if kind == HEIF:
        module.register_heif_opener(thumbnails=False)
    return kind in Image.OPEN


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadPicture("too_large", f"{width} x {height} pixels, more than the {max_pixels:,} allowed")


def _several_frames(data: bytes, picture: Image.Image, kind: str) -> Iterator[tuple[str, str]]:
    if kind in ("JPEG", "MPO", "BMP", JPEG_XL):  # the further pictures of an MPO show the same again
        return
    frames = 1
    with contextlib.suppress(Exception):  # a broken second frame is none
        looked = read_header(data) if kind == "GIF" else picture  # looking for a second frame of a GIF moves to it
        frames = 2 if getattr(looked, "is_animated", False) else 1
    if frames > 1:
        yield "several_frames", "it moves or has pages; the first frame stands for it"


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits to 0…255; Pillow's own conversion clips them, which turns most such pictures white.

    16-bit values have a fixed range. 32-bit integers are taken for 16-bit values when they fit, and floating-point values for
    fractions of white when they lie in 0…1; any other picture is stretched from its smallest to its largest value.
    """
    if picture.mode.startswith("I;"):  # getextrema and point know only some of these modes
        picture = picture.convert("I")
    low, high = cast(tuple[float, float], picture.getextrema())
    if picture.mode == "F" and not np.isfinite(np.asarray(picture)).all():
        raise BadPicture("undecodable", "its floating-point pixels are not all finite")
    if picture.mode == "F":
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    elif low >= 0 and high <= 65535:
        low, high = 0, 65535
    scale = 255 / (high - low) if high > low else 0.0
    return picture.convert("F").point(lambda value: value * scale + (0.5 - low * scale)).convert("L")
