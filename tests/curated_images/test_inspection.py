"""What is kept of an image: the original file where it is right as it is, else a new one."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from assets.curated_images.inspection import Usable, inspect
from assets.pictures.decoding import BadPicture
from assets.pictures.opening import open_picture


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture, "JPEG", exif=exif)


def keep(data: bytes) -> Usable:
    found = inspect(data, max_pixels=1_000_000, min_side=8)
    assert isinstance(found, Usable)
    return found


def plain(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_files_that_are_right_are_kept_as_they_are(kind):
    data = encode(noise(20, 16), kind)
    found = keep(data)
    assert found.image is None
    assert (found.width, found.height) == (20, 16)


def test_an_opaque_alpha_channel_needs_no_new_file():
    data = encode(noise(20, 16).convert("RGBA"), "PNG")
    assert keep(data).image is None


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.new("RGBA", (20, 16), (255, 0, 0, 100)), "PNG"),
        encode(Image.fromarray((np.arange(320, dtype=np.uint16) * 200).reshape(16, 20)), "PNG"),
        encode(Image.fromarray((np.arange(320, dtype=np.float32) / 319).reshape(16, 20)), "TIFF"),
        turned(noise(20, 16)),
    ],
    ids=["alpha", "16 bits", "float", "exif"],
)
def test_other_files_are_written_anew_without_loss(data):
    found = keep(data)
    assert found.image is not None
    assert found.image.startswith(b"\x89PNG")
    assert (plain(found.image) == np.asarray(open_picture(data, 1_000_000))).all()
    assert plain(found.image).shape == (found.height, found.width, 3)


def test_big_photographs_that_lie_on_their_side_stay_jpeg():
    gradient = Image.linear_gradient("L").resize((600, 300)).convert("RGB")
    found = keep(turned(gradient))
    assert found.image.startswith(b"\xff\xd8\xff")
    assert (found.width, found.height) == (300, 600)
    assert np.abs(plain(found.image) - np.asarray(open_picture(turned(gradient), 1_000_000)).astype(int)).max() <= 4


def test_digest_tells_pixels_apart_and_nothing_else():
    picture = noise(20, 16)
    assert keep(encode(picture, "PNG")).pixels == keep(encode(picture, "BMP")).pixels == keep(encode(picture.convert("RGBA"), "PNG")).pixels
    assert keep(encode(picture, "PNG")).pixels != keep(encode(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG")).pixels
    # the same bytes in another shape
    assert keep(encode(Image.new("RGB", (20, 16)), "PNG")).pixels != keep(encode(Image.new("RGB", (16, 20)), "PNG")).pixels


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"text", "undecodable", "it begins with b'text'"),
        (encode(Image.new("L", (1001, 1000)), "PNG"), "too_large", "1001 x 1000 pixels"),
        (encode(Image.new("L", (100, 7)), "PNG"), "too_small", "100 x 7 pixels; a side needs at least 8"),
    ],
)
def test_unusable_pictures(data, reason, detail):
    found = inspect(data, max_pixels=1_000_000, min_side=8)
    assert isinstance(found, BadPicture)
    assert found.reason == reason
    assert detail in found.detail
