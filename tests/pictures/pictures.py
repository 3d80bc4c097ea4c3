"""Small picture files that tests of this folder draw."""

import io

from PIL import Image


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(color: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    return encoded(Image.new("RGB", size, color))
