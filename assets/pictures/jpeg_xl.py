"""The size that a JPEG XL file claims, read from its header alone: the plugin for Pillow decodes all pixels before it tells.

ISO/IEC 18181-1, SizeHeader; 18181-2, boxes.
"""

from __future__ import annotations

from assets.pictures.decoding import BadPicture

RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # of width to height
BITS = (9, 13, 18, 30)


def jpeg_xl_size(data: bytes) -> tuple[int, int]:
    """Width and height, as the pixels are stored. BadPicture where the file has no such header."""
    codestream = _codestream(data)
    if codestream[:2] != b"\xff\x0a":
        raise BadPicture("undecodable", "not a readable JPEG XL file: it has no codestream")
    bits, at = int.from_bytes(codestream[2:18], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & ((1 << count) - 1)

    def side(small: int) -> int:
        return (take(5) + 1) * 8 if small else take(BITS[take(2)]) + 1

    small = take(1)
    height = side(small)
    ratio = take(3)
    if ratio:
        over, under = RATIOS[ratio]
        return height * over // under, height
    return side(small), height


def _codestream(data: bytes) -> bytes:
    """The first bytes of the codestream: the file's own, or those of the box `jxlc` or of the first `jxlp`."""
    if data[:2] == b"\xff\x0a":
        return data[:32]
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        if kind in (b"jxlc", b"jxlp"):
            return data[at + head + (4 if kind == b"jxlp" else 0) :][:32]
        if size < head:  # 0: to the end of the file
            break
        at += size
    return b""
