"""Small copies of curated pictures for people to look at. Which pictures are shown is decided elsewhere."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from assets.pictures.decoding import decode


def thumbnail(data: bytes, side: int) -> Image.Image:
    """A curated picture, RGB, shrunk to fit into side × side pixels; a smaller one keeps its size."""
    small = decode(data, enough=side)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def tile(data: bytes, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: a curated picture, scaled up or down to fit, centred on white."""
    picture = decode(data, enough=side)
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(picture.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas)


def data_uri(picture: Image.Image) -> str:
    """The picture as the address of an `<img>`, which holds the whole picture as WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=86, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
