"""Small copies of pictures: how large they are, and that they show the whole picture."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from assets.pictures.small import data_uri, thumbnail, tile
from tests.pictures.pictures import encoded, png

RED, BLUE = (255, 0, 0), (0, 0, 255)


def half_red_half_blue(size: tuple[int, int]) -> Image.Image:
    """Red on the left."""
    picture = Image.new("RGB", size, BLUE)
    picture.paste(RED, (0, 0, size[0] // 2, size[1]))
    return picture


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 200), (40, 20)), ((30, 90), (13, 40)), ((40, 40), (40, 40)), ((12, 8), (12, 8)), ((1000, 1), (40, 1))]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_thumbnail_fits_and_is_never_larger_than_its_picture(size, expected, kind):
    small = thumbnail(encoded(Image.new("RGB", size, RED), kind), 40)
    assert small.mode == "RGB"
    assert small.size == expected


def test_a_thumbnail_of_a_large_jpeg_shows_all_of_it():
    small = thumbnail(encoded(half_red_half_blue((1600, 1600)), "JPEG"), 40)
    assert np.allclose(small.getpixel((5, 20)), RED, atol=4)
    assert np.allclose(small.getpixel((34, 20)), BLUE, atol=4)


def test_curated_pictures_may_have_more_pixels_than_pillow_allows(monkeypatch):
    """The bound of curated pictures is a setting, curated_images.max_megapixels; the report must not warn about or stop at one."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = png(RED, (100, 50))
    assert thumbnail(data, 20).size == (20, 10)
    assert tile(data, 20).shape == (20, 20, 3)


def test_grey_and_palette_pictures_become_rgb():
    assert thumbnail(encoded(Image.new("L", (8, 8), 7)), 4).getpixel((0, 0)) == (7, 7, 7)
    assert thumbnail(encoded(half_red_half_blue((8, 8)).quantize(2)), 8).getpixel((0, 0)) == RED


@pytest.mark.parametrize("size", [(400, 200), (4, 2)])
def test_a_tile_is_the_whole_picture_centred_on_white(size):
    shown = tile(encoded(half_red_half_blue(size)), 20)
    assert shown.shape == (20, 20, 3)
    assert shown.dtype == np.uint8
    assert (shown[:5] == 255).all()
    assert (shown[15:] == 255).all()
    assert np.allclose(shown[5:15, :7], RED, atol=30)  # Lanczos overshoots a little beside an edge
    assert np.allclose(shown[5:15, 13:], BLUE, atol=30)


def test_a_tile_of_a_very_thin_picture():
    shown = tile(png(RED, (1000, 1)), 20)
    assert (shown == RED).all(axis=2).any(axis=1).sum() == 1  # one row of pixels is left of it


def test_an_address_holds_the_picture_itself():
    head, _, body = data_uri(half_red_half_blue((16, 8))).partition(",")
    assert head == "data:image/webp;base64"
    picture = Image.open(BytesIO(base64.b64decode(body, validate=True)))
    assert (picture.format, picture.size) == ("WEBP", (16, 8))
