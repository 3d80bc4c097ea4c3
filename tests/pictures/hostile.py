"""Pictures as people have them, and files that are none: some two hundred, each with what should become of it. Nothing is read from disk.

Each drawing has four quarters, whose colours tell whether it was turned, cut or its colours were misread, and is another one than all
others. Mutations of good files come from a seed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

SIZE = (48, 32)
WHITE = (255, 255, 255)
RGB = tuple[int, int, int]
LOSSLESS = ("PNG", "BMP", "TIFF")
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))  # D50, red green blue
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]).T  # to XYZ


@dataclass(frozen=True)
class Case:
    """A file and what becomes of it: the colours of its quarters (top left, top right, below), or the reason why it is rejected."""

    name: str
    data: bytes
    colours: tuple[RGB, ...] = ()
    reason: str | None = None
    tolerance: int = 5
    size: tuple[int, int] = SIZE
    note: str | None = None


def quarters(number: int) -> tuple[RGB, ...]:
    return ((200 - number // 16, 40 + number % 16 * 2, 40), (40, 160, 60), (50, 70, 190), (230, 220, 120))


def drawing(colours: Sequence[RGB]) -> Image.Image:
    picture = Image.new("RGB", SIZE, colours[0])
    for place, colour in zip(((24, 0), (0, 16), (24, 16)), colours[1:], strict=True):
        picture.paste(colour, (*place, place[0] + 24, place[1] + 16))
    return picture


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **({"quality": 95} if kind in ("JPEG", "WEBP", "AVIF", "HEIF") else {}) | options)
    return stream.getvalue()


def cases() -> list[Case]:
    makers = (_modes, _turned, _profiles, _frames, _torn, _others, _bombs, _small)
    return [case for number, maker in enumerate(makers) for case in maker(100 * number)]


def optional_kinds() -> list[str]:
    """Formats that this installation can also write."""
    import importlib

    kinds = ["AVIF"]
    for module, kind in (("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")):
        try:
            loaded = importlib.import_module(module)
        except ImportError:
            continue
        if kind == "HEIF":
            loaded.register_heif_opener(thumbnails=False)
        kinds.append(kind)
    return kinds


def _modes(start: int) -> Iterator[Case]:
    number = start
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", *optional_kinds()):
        number += 1
        yield Case(f"plain {kind}", encode(drawing(quarters(number)), kind), quarters(number), tolerance=9)
    for options in ({"progressive": True}, {"subsampling": 0}, {"subsampling": 2, "optimize": True}):
        number += 1
        yield Case(f"JPEG {options}", encode(drawing(quarters(number)), "JPEG", **options), quarters(number), tolerance=9)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        number += 1
        yield Case(f"TIFF {compression}", encode(drawing(quarters(number)), "TIFF", compression=compression), quarters(number), tolerance=9)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("AVIF", {"subsampling": "4:4:4"})):
        number += 1
        colours = quarters(number)
        see_through = drawing(colours).convert("RGBA")
        see_through.paste((0, 0, 0, 0), (24, 0, 48, 16))
        yield Case(f"RGBA {kind}", encode(see_through, kind, **options), (colours[0], WHITE, *colours[2:]), tolerance=9)
    for kind, options in (("PNG", {}), ("GIF", {}), ("TIFF", {})):
        number += 1
        colours = quarters(number)
        palette = drawing(colours).quantize(8)
        yield Case(f"palette {kind}", encode(palette, kind, **options), colours)
        number += 1
        colours = quarters(number)
        palette = drawing(colours).quantize(8)
        if kind != "TIFF":
            clear = palette.getpixel((30, 4))
            yield Case(f"palette with a clear colour {kind}", encode(palette, kind, transparency=clear), (colours[0], WHITE, *colours[2:]))
    levels = np.kron(np.array([[10, 90], [170, 250]]), np.ones((16, 24)))
    grey = tuple((value, value, value) for value in (10, 90, 170, 250))
    for bits, kind in ((np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF")):
        number += 1
        deep = (levels * 257).astype(bits)
        deep[0, 0] = number * 257
        yield Case(f"{bits.__name__} {kind}", encode(Image.fromarray(deep), kind), grey)
    number += 1
    swapped = Image.frombytes("I;16B", SIZE, (levels * 257 + number).astype(">u2").tobytes())
    yield Case("16 bits, big end first", encode(swapped, "TIFF"), grey)
    fractions = (levels / 255).astype(np.float32)
    fractions[0, 0] = 0.5
    yield Case("fractions", encode(Image.fromarray(fractions), "TIFF"), grey)
    stretched = (levels * 100 - 1000).astype(np.float32)
    yield Case("floats of another range", encode(Image.fromarray(stretched), "TIFF"), ((0,) * 3, (85,) * 3, (170,) * 3, (255,) * 3))
    fractions[3, 3] = np.nan
    yield Case("floats that are no numbers", encode(Image.fromarray(fractions), "TIFF"), reason="undecodable")
    for place, kind in enumerate(("PNG", "TIFF", "BMP")):
        ones = np.kron(np.array([[0, 1], [1, 0]]), np.ones((16, 24))).astype(bool)
        ones[0, :place] = True
        yield Case(f"1 bit {kind}", encode(Image.fromarray(ones), kind), ((0,) * 3, WHITE, WHITE, (0,) * 3))
    for place, kind in enumerate(("JPEG", "PNG", "WEBP")):
        shade = Image.fromarray((levels + 2 * place - 3).astype(np.uint8))
        yield Case(f"grey {kind}", encode(shade, kind), grey, tolerance=6)
    see_through = Image.fromarray(levels.astype(np.uint8)).convert("LA")
    see_through.putalpha(Image.fromarray((levels > 100).astype(np.uint8) * 255))
    yield Case("grey with alpha", encode(see_through, "PNG"), (WHITE, WHITE, (170,) * 3, (250,) * 3))
    yield from _inks(number + 1)


def _inks(number: int) -> Iterator[Case]:
    colours = quarters(number)
    data = encode(drawing(colours).convert("CMYK"), "JPEG")
    yield Case("CMYK JPEG with Adobe's marker", data, colours, tolerance=9)
    colours = quarters(number + 1)
    data = encode(drawing(colours).convert("CMYK"), "JPEG")
    yield Case("CMYK JPEG without Adobe's marker", _without_marker(data, 0xEE), colours, tolerance=9)
    colours = quarters(number + 2)
    # what Adobe stores of YCCK: luma and chroma of the inverted inks, and the inverted black
    stored = np.asarray(drawing([tuple(255 - value for value in each) for each in colours]).convert("YCbCr"))
    inks = Image.merge("CMYK", [Image.fromarray(255 - stored[..., channel]) for channel in range(3)] + [Image.new("L", SIZE, 0)])
    data = bytearray(encode(inks, "JPEG"))
    at = data.index(b"Adobe")
    data[at + 11] = 2  # the transform: YCCK
    yield Case("YCCK JPEG", bytes(data), colours, tolerance=12)
    colours = quarters(number + 3)
    yield Case("CMYK TIFF", encode(drawing(colours).convert("CMYK"), "TIFF"), colours)
    colours = quarters(number + 4)
    yield Case("YCbCr TIFF", encode(drawing(colours).convert("YCbCr"), "TIFF"), colours)
    colours = quarters(number + 5)
    lab = ImageCms.profileToProfile(drawing(colours), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    yield Case("LAB TIFF", encode(lab, "TIFF"), colours, tolerance=12)


def _without_marker(data: bytes, marker: int) -> bytes:
    at = 2
    while data[at + 1] != marker:
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]


def _turned(start: int) -> Iterator[Case]:
    # where the quarters of a picture lie once it is upright, by EXIF's orientation
    order = {1: "0123", 2: "1032", 3: "3210", 4: "2301", 5: "0213", 6: "2031", 7: "3120", 8: "1302"}
    number = start
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", *(kind for kind in optional_kinds() if kind == "AVIF")):
        for orientation, places in order.items():
            number += 1
            exif = Image.Exif()
            exif[0x0112] = orientation
            colours = quarters(number)
            size = SIZE if orientation < 5 else SIZE[::-1]
            data = encode(drawing(colours), kind, exif=exif)
            yield Case(f"orientation {orientation} {kind}", data, tuple(colours[int(place)] for place in places), tolerance=9, size=size)
    for value in (0, 9, 65535):
        number += 1
        exif = Image.Exif()
        exif[0x0112] = value
        yield Case(f"orientation {value}", encode(drawing(quarters(number)), "JPEG", exif=exif), quarters(number), tolerance=9)
    for junk in (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", b"Exif\0\0II*\0\xff\xff\xff\xff", bytes(300)):
        number += 1
        yield Case(f"broken EXIF {junk[:12]!r}", encode(drawing(quarters(number)), "PNG", exif=junk), quarters(number))


def _linear(gamma: float, colour: RGB) -> np.ndarray:
    return (np.array(colour) / 255) ** gamma


def in_srgb(colour: RGB, primaries: Sequence[Sequence[float]], gamma: float) -> RGB:
    """By the definitions of the colour spaces, without a library."""
    light = np.linalg.inv(SRGB) @ (np.array(primaries).T @ _linear(gamma, colour))
    light = light.clip(0, 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return tuple(round(float(value) * 255) for value in shown)  # type: ignore[return-value]


def _tag(kind: bytes, content: bytes) -> bytes:
    data = kind + bytes(4) + content
    return data + bytes(-len(data) % 4)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


WHITE_POINT = _tag(b"XYZ ", _fixed(0.9642) + _fixed(1.0) + _fixed(0.8249))  # of daylight D50


def profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 2.1."""
    tags = {b"desc": _tag(b"desc", struct.pack(">I", 5) + b"test\0" + bytes(78)), b"cprt": _tag(b"text", b"none\0")} | tags
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = b"lcms" + bytes.fromhex("02100000") + kind + space + connection + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += _fixed(0.9642) + _fixed(1.0) + _fixed(0.8249)
    head += bytes(124 - len(head))
    body = head + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(body) + 4) + body


def matrix_profile(primaries: Sequence[Sequence[float]], gamma: float) -> bytes:
    curve = _tag(b"curv", struct.pack(">IH", 1, round(gamma * 256)))
    columns = {name: _tag(b"XYZ ", b"".join(map(_fixed, own))) for name, own in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile(b"RGB ", {b"wtpt": WHITE_POINT} | columns | curves)


def ink_profile(paper: RGB, cyan: RGB) -> bytes:
    """CMYK in which only white paper and full cyan are told apart, by a table of two steps a channel."""
    both = Image.fromarray(np.array([[paper, cyan]], np.uint8))
    lab = ImageCms.profileToProfile(both, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    values = [[int(value) for value in lab.getpixel((at, 0))] for at in (0, 1)]  # type: ignore[union-attr]
    corners = b"".join(bytes(values[1 if corner & 8 else 0]) for corner in range(16))
    identity = bytes(range(256))
    matrix = b"".join(_fixed(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table = bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners + identity * 3
    return profile(b"CMYK", {b"A2B0": _tag(b"mft1", table)}, b"Lab ")


def _profiles(start: int) -> Iterator[Case]:
    number = start
    wide = {"Adobe RGB": (ADOBE_RGB, 2.19921875), "P3": (DISPLAY_P3, 2.2)}
    for name, (primaries, gamma) in wide.items():
        own = matrix_profile(primaries, gamma)
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", *optional_kinds()):
            number += 1
            if kind == "JXL":  # its plugin writes a profile as it pleases
                continue
            colours = tuple(in_srgb(each, primaries, gamma) for each in quarters(number))
            yield Case(f"{name} {kind}", encode(drawing(quarters(number)), kind, icc_profile=own), colours, tolerance=11)
        number += 1
        colours = tuple(in_srgb(each, primaries, gamma) for each in quarters(number))
        see_through = drawing(quarters(number)).convert("RGBA")
        see_through.paste((9, 9, 9, 0), (24, 0, 48, 16))
        yield Case(f"{name} with alpha", encode(see_through, "PNG", icc_profile=own), (colours[0], WHITE, *colours[2:]))
        number += 1
        colours = tuple(in_srgb(each, primaries, gamma) for each in quarters(number))
        yield Case(f"{name} palette", encode(drawing(quarters(number)).quantize(8), "PNG", icc_profile=own), colours)
    number += 1
    linear = profile(b"GRAY", {b"wtpt": WHITE_POINT, b"kTRC": _tag(b"curv", struct.pack(">I", 0))})
    levels = np.kron(np.array([[10, 90], [170, 250]]), np.ones((16, 24))).astype(np.uint8)
    shown = tuple((value,) * 3 for value in (56, 160, 213, 253))
    yield Case("linear grey", encode(Image.fromarray(levels), "PNG", icc_profile=linear), shown)
    deep = levels.astype(np.uint16) * 257
    deep[0, 0] = 0
    yield Case("linear grey, 16 bits", encode(Image.fromarray(deep), "TIFF", icc_profile=linear), shown)
    inks = Image.merge("CMYK", [Image.fromarray(((levels > 50) * 255).astype(np.uint8)), *[Image.new("L", SIZE)] * 3])
    cyan = (20, 120, 160)
    for kind in ("JPEG", "TIFF"):
        yield Case(
            f"CMYK with a profile {kind}", encode(inks, kind, icc_profile=ink_profile(WHITE, cyan)), (WHITE, cyan, cyan, cyan), tolerance=14
        )
        cyan = (30, 100, 170)
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        number += 1
        yield Case(f"sRGB's own profile {kind}", encode(drawing(quarters(number)), kind, icc_profile=same), quarters(number), tolerance=9)
    good = matrix_profile(ADOBE_RGB, 2.2)
    broken = {"junk": b"no profile at all", "torn": good[:200], "of grey": linear, "zeros": bytes(500), "only a head": good[:128]}
    for name, own in broken.items():
        for kind in ("JPEG", "PNG"):
            number += 1
            data = encode(drawing(quarters(number)), kind, icc_profile=own)
            yield Case(f"profile {name} {kind}", data, quarters(number), tolerance=9, note="profile_ignored")


def _frames(start: int) -> Iterator[Case]:
    number = start
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        number += 1
        more = [drawing(quarters(900)), drawing(quarters(901))]
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(drawing(quarters(number)), kind, save_all=True, append_images=more, **options)
        yield Case(f"frames {kind}", data, quarters(number), tolerance=9, note="several_frames")
    number += 1
    data = encode(drawing(quarters(number)), "MPO", save_all=True, append_images=[drawing(quarters(902))], quality=95)
    yield Case("MPO", data, quarters(number), tolerance=9)
    number += 1
    data = encode(drawing(quarters(number)), "GIF", save_all=True, append_images=[drawing(quarters(903))])
    yield Case("a second frame that breaks off", data[:-30], quarters(number), note="several_frames")
    number += 1
    yield Case("more bytes after the end", encode(drawing(quarters(number)), "JPEG") + bytes(1000), quarters(number), tolerance=9)


def _torn(start: int) -> Iterator[Case]:
    chance = np.random.default_rng(0)
    noise = Image.fromarray(chance.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", *optional_kinds()):
        data = encode(noise, kind)
        for share in (0.02, 0.3, 0.6, 0.9):
            yield Case(f"{kind} cut after {share:.0%}", data[: int(len(data) * share)], reason="undecodable")
    good = encode(noise, "PNG")
    broken = bytearray(good)
    broken[good.index(b"IDAT") + 20] ^= 0xFF
    yield Case("PNG with a wrong checksum", bytes(broken), reason="undecodable")


def _others(start: int) -> Iterator[Case]:
    for name, data in {
        "empty": b"",
        "one byte": b"\0",
        "zeros": bytes(5000),
        "text": b"this is a text that someone named .jpg\n" * 20,
        "HTML": b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>",
        "HTML after spaces": b"\n\n  <html><body>Please log in</body></html>",
        "JSON": json.dumps({"error": "access denied"}).encode(),
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
        "random": np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8).tobytes(),
        "JPEG's first bytes": b"\xff\xd8\xff",
        "JPEG's first and last bytes": b"\xff\xd8\xff\xd9",
        "GIF's first bytes": b"GIF89a",
        "BMP's first bytes": b"BM",
        "TIFF's first bytes": b"II*\0",
        "TIFF that points to itself": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x08\0\0\0",
        "WebP's first bytes": b"RIFF\0\0\0\0WEBPVP8 ",
        "PNG's first bytes": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }.items():  # fmt: skip
        yield Case(name, data, reason="undecodable")
    for name, data in {
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "SVG that reads a file": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY f SYSTEM "file:///x">]>\n<svg><text>&f;</text></svg>',
        "SVG that asks the network": b'<!-- made by hand -->\n<svg><image href="http://127.0.0.1:9/x.png"/></svg>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "PDF": b"%PDF-1.7\n",
        "Photoshop": b"8BPS\0\x01" + bytes(50),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50),
        "icon": b"\0\0\x01\0\x01\0" + bytes(50),
        "GIMP": b"gimp xcf file\0" + bytes(50),
        "video": b"\0\0\0\x20ftypisom" + bytes(50),
        "Matroska": b"\x1aE\xdf\xa3" + bytes(50),
        "AVI": b"RIFF\0\0\0\0AVI LIST" + bytes(50),
        "netpbm": b"P6\n2 2\n255\n" + bytes(12),
        "ZIP": b"PK\x03\x04" + bytes(50),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
    }.items():  # fmt: skip
        yield Case(name, data, reason="unsupported")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IEND", b"")


def _bombs(start: int) -> Iterator[Case]:
    content = _chunk(b"IDAT", zlib.compress(bytes(1000)))
    yield Case("PNG of 2.5 thousand megapixels", _png(50_000, 50_000, content), reason="too_large")
    yield Case("PNG of all that its header can say", _png(2**31 - 1, 2**31 - 1, content), reason="too_large")
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    yield Case("PNG with a text that grows", _png(1, 1, text, _chunk(b"IDAT", zlib.compress(b"\0\0"))), reason="undecodable")
    small = drawing(quarters(start))
    bmp = bytearray(encode(small, "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield Case("BMP", bytes(bmp), reason="too_large")
    gif = bytearray(encode(small, "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield Case("GIF", bytes(gif), reason="too_large")
    jpeg = bytearray(encode(small, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    yield Case("JPEG", bytes(jpeg), reason="too_large")
    webp = bytearray(encode(small, "WEBP"))
    at = webp.index(b"\x9d\x01\x2a")
    webp[at + 3 : at + 7] = struct.pack("<HH", 16_383, 16_383)
    yield Case("WebP", bytes(webp), reason="too_large")
    if "JXL" in optional_kinds():
        yield Case("JPEG XL of a thousand megapixels", b"\xff\x0a" + _jpeg_xl_header(33_333, 33_333) + bytes(40), reason="too_large")
    yield Case("a little too large", encode(Image.new("L", (1001, 1000), 9), "PNG"), reason="too_large")


def _jpeg_xl_header(width: int, height: int) -> bytes:
    bits = 0 | 2 << 1 | (height - 1) << 3 | 0 << 21 | 2 << 24 | (width - 1) << 26  # not small; 18 bits a side
    return bits.to_bytes(8, "little")


def _small(start: int) -> Iterator[Case]:
    for number, size in enumerate(((1, 1), (7, 7), (7, 400), (400, 7), (1, 900))):
        yield Case(f"{size[0]} x {size[1]}", encode(Image.new("RGB", size, (number, 9, 9)), "PNG"), reason="too_small")
    for shade in (0, 128, 255):
        yield Case(f"nothing but {shade}", encode(Image.new("L", (40 + shade, 40), shade), "PNG"), reason="blank")
    nearly = np.random.default_rng(0).integers(253, 256, (40, 40, 3), dtype=np.uint8)
    yield Case("a white wall", encode(Image.fromarray(nearly), "PNG"), reason="blank")
    lines = drawing(quarters(start)).resize((900, 20), Image.Resampling.NEAREST)
    yield Case("a thin strip", encode(lines, "PNG"), reason="too_long")


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Good files in which bytes were changed, cut out, repeated or moved."""
    chance = np.random.default_rng(seed)
    good = [case.data for case in cases() if case.colours]
    for _ in range(count):
        data = bytearray(good[chance.integers(len(good))])
        for _ in range(int(chance.integers(1, 6))):
            at = int(chance.integers(len(data))) if chance.random() < 0.5 else int(chance.integers(min(len(data), 200)))
            how = int(chance.integers(5))
            if how == 0:
                data[at] = int(chance.integers(256))
            elif how == 1:
                data[at] ^= 1 << int(chance.integers(8))
            elif how == 2:
                del data[at : at + int(chance.integers(1, 30))]
            elif how == 3:
                data[at:at] = data[at : at + int(chance.integers(1, 60))]
            else:
                data[at : at + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"][int(chance.integers(4))]
            if not data:
                break
        yield bytes(data)
