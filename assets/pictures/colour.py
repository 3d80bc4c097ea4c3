"""Colours to sRGB, by the profile that a picture carries: models are trained on sRGB, and readers of plain pixels take them for it."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

SAME = 3  # levels of 255: a profile that moves no colour by more is sRGB by another hand, and the file stays as it is
SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}  # of a profile → the mode that it describes
ALPHA = {"RGBA": "RGB", "LA": "L", "La": "L", "RGBa": "RGB", "PA": "RGB"}


class BrokenProfile(Exception):
    """A profile that cannot be used; the message is a sentence for people."""


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB, RGB or RGBA; the very same object where its colours are sRGB already, as without a profile.

    Relative colorimetric with black point compensation, as viewers do it: what is white stays white. LAB needs no profile. BrokenProfile
    where it cannot be read or describes other channels than the picture has.
    """
    alpha = None
    transparent = picture.has_transparency_data if picture.mode == "P" else picture.mode in ALPHA
    if profile is None and picture.mode != "LAB":
        return picture
    plain = picture
    if transparent:
        plain = picture.convert("RGBA" if picture.mode in ("P", "PA", "RGBA", "RGBa") else "LA")
        alpha = plain.getchannel("A")
    mode = ALPHA.get(plain.mode, {"P": "RGB", "1": "L", "YCbCr": "RGB", "RGBX": "RGB"}.get(plain.mode, plain.mode))
    change = _change(profile, mode)
    if change is None:
        return picture
    found = ImageCms.applyTransform(plain if plain.mode == mode else plain.convert(mode), change)
    assert found is not None
    if alpha is not None:
        found.putalpha(alpha)
    return found


@lru_cache(maxsize=64)  # a folder's pictures come from a few cameras and programs
def _change(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From pictures of `mode` with this profile to sRGB; None where that changes nothing worth it."""
    try:
        own = ImageCms.createProfile("LAB") if profile is None else ImageCms.ImageCmsProfile(BytesIO(profile)).profile
        described = SPACES.get("Lab " if profile is None else own.xcolor_space)
        if described != mode:
            raise BrokenProfile(f"its colour profile describes {described or 'other colours'}, and its pixels are {mode}")
        change = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(own),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if mode in ("RGB", "L") and _moves(change, mode) <= SAME else change
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise BrokenProfile(f"its colour profile cannot be used: {error}") from error


def _moves(change: ImageCms.ImageCmsTransform, mode: str) -> int:
    """The largest change of a channel, over a grid of all colours."""
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        steps = np.linspace(0, 255, 18).astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3))
    moved = ImageCms.applyTransform(probe, change)
    assert moved is not None
    return int(np.abs(np.asarray(moved).astype(int) - np.asarray(probe.convert("RGB"))).max())
