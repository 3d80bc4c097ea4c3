"""Small copies of pictures for people to look at. Which pictures are shown is decided elsewhere."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def thumbnail(data: bytes, side: int) -> Image.Image:
    """A curated picture, RGB, shrunk to fit into side × side pixels; a smaller one stays as it is."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", (side, side))
        small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def data_uri(picture: Image.Image) -> str:
    """The picture inside the page itself, as WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=86, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def tile(data: bytes, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the picture scaled to fit, centred on white."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", (side, side))
        whole = picture.convert("RGB")
    scale = side / max(whole.size)
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    canvas = Image.new("RGB", (side, side), "white")
    canvas.paste(whole.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas)
