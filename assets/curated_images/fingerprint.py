"""What a picture looks like in 256 bits, nearly the same for its copies: a perceptual hash of pixels, for near_duplicates.py to compare.

The hash is PDQ's idea (signs of the low frequencies of a cosine transform of the grey picture, above or below their median). A picture
has one for each of VIEWS: itself, its mirror image, and itself without some of its border, so that a cropped copy is met by one of them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE, FREQUENCIES = 64, 16
BYTES = FREQUENCIES * FREQUENCIES // 8
CUT = 0.05  # of a side
FLAT = 1.0  # levels of 255: the frequencies of a picture without any drawing are rounding and noise, and so is its hash


def _transform(low: float, high: float) -> np.ndarray:
    """float32 [FREQUENCIES, SIDE]: from SIDE samples to the cosine transform of the part from `low` to `high`."""
    places = np.clip((low + (np.arange(SIDE) + 0.5) / SIDE * (high - low)) * SIDE - 0.5, 0, SIDE - 1)
    left = np.minimum(places.astype(int), SIDE - 2)
    resample = np.zeros((SIDE, SIDE))
    resample[np.arange(SIDE), left] = 1 - (places - left)
    resample[np.arange(SIDE), left + 1] = places - left
    cosines = np.cos(np.pi / SIDE * np.outer(np.arange(1, FREQUENCIES + 1), np.arange(SIDE) + 0.5))
    return (cosines @ resample * (2 / SIDE)).astype(np.float32)


WHOLE, CENTRE, HALF_CENTRE = (0.0, 1.0), (CUT, 1 - CUT), (CUT / 2, 1 - CUT / 2)
FIRST, LAST = (CUT, 1.0), (0.0, 1 - CUT)  # without the first, without the last part
PARTS = (  # (down, across) of the views, the mirror image left out
    (WHOLE, WHOLE), (CENTRE, CENTRE), (HALF_CENTRE, HALF_CENTRE),
    *((down, across) for down in (FIRST, LAST) for across in (FIRST, LAST)),
    (FIRST, WHOLE), (LAST, WHOLE), (WHOLE, FIRST), (WHOLE, LAST),
)  # fmt: skip
DOWN = np.stack([_transform(*down) for down, _ in PARTS])  # [views, FREQUENCIES, SIDE]
ACROSS = np.stack([_transform(*across).T for _, across in PARTS])  # [views, SIDE, FREQUENCIES]
VIEWS = len(PARTS) + 1
SIZE = VIEWS * BYTES


def fingerprint(picture: Image.Image) -> bytes:
    """uint8 [VIEWS, BYTES] of an RGB picture, the whole first, then its mirror image; only zeros for a picture without a drawing."""
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    grey = np.asarray(small, np.float32)
    views = DOWN @ grey @ ACROSS
    if np.abs(views[0]).max() < FLAT:
        return bytes(SIZE)
    mirrored = views[0].copy()
    mirrored[:, 0::2] *= -1  # the odd frequencies, from left to right
    views = np.concatenate([views[:1], mirrored[None], views[1:]]).reshape(VIEWS, -1)
    return np.packbits(views > np.median(views, axis=1, keepdims=True), axis=1).tobytes()
