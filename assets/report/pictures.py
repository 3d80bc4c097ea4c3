"""Small pictures for the page and the plots, and whom to credit for them. Which pictures are shown is decided elsewhere."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, order=True)
class Credit:
    source: str
    license: str
    attribution: str

    @property
    def short(self) -> str:
        return f"{self.source} ({self.license})"

    @property
    def line(self) -> str:
        """For a picture file, where no address can be followed."""
        return f"{re.sub(r',? *https?://[^ ,]+', '', self.attribution)} ({self.license})"


def credits_of(rows: Iterable[dict[str, str]]) -> list[Credit]:
    """The distinct credits of some rows (source, license, attribution), sorted."""
    return sorted({Credit(row["source"], row["license"], row["attribution"]) for row in rows})


def credit_line(found: Sequence[Credit]) -> str:
    """What stands below a picture file that shows other pictures."""
    line = "Pictures: " + " · ".join(credit.line for credit in found)
    alike = share_alike(found)
    return f"{line}. This grid: {alike}, as its sources ask." if alike else f"{line}."


def share_alike(found: Sequence[Credit]) -> str | None:
    """The licence that a grid of these pictures must carry as well, where one of them asks for that."""
    return next((credit.license for credit in reversed(found) if credit.license.startswith("CC-BY-SA")), None)


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
