"""open_picture on good, odd and hostile bytes; decode on curated ones."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from assets.pictures.decoding import BadPicture, decode
from assets.pictures.opening import open_picture, open_untrusted

LIMIT = 1_000_000

pytestmark = pytest.mark.filterwarnings("error")


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    channels = len(mode)
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return (
        Image.fromarray(values.squeeze(), mode)
        if channels == 1
        else Image.merge(mode, [Image.fromarray(v) for v in np.moveaxis(values, 2, 0)])
    )


def pixels(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(kind):
    picture = noise()
    assert (pixels(open_picture(encode(picture, kind), LIMIT)) == pixels(picture)).all()


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP"])
def test_other_formats_are_read(kind):
    assert np.abs(pixels(open_picture(encode(Image.new("RGB", (40, 30), (200, 30, 90)), kind), LIMIT)) - [200, 30, 90]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_rescaled_not_clipped(kind):
    values = np.array([[0, 257, 128 * 257], [1000, 40000, 65535]], dtype=np.uint16)
    read = pixels(open_picture(encode(Image.fromarray(values), kind), LIMIT))
    assert (read == np.round(values / 257)[..., None]).all()


def test_32_bit_integers_and_floats_are_rescaled():
    def read(values: np.ndarray) -> list[int]:
        return pixels(open_picture(encode(Image.fromarray(values), "TIFF"), LIMIT))[..., 0].ravel().tolist()

    assert read(np.array([[0, 65535, 25700]], dtype=np.int32)) == [0, 255, 100]
    assert read(np.array([[-100_000, 100_000, 0]], dtype=np.int32)) == [0, 255, 128]
    assert read(np.array([[0.0, 1.0, 0.2]], dtype=np.float32)) == [0, 255, 51]
    assert read(np.array([[-10.0, 10.0, -2.0]], dtype=np.float32)) == [0, 255, 102]
    assert read(np.array([[7.0, 7.0]], dtype=np.float32)) == [0, 0]
    with pytest.raises(BadPicture, match="not all finite"):
        read(np.array([[np.nan, 1.0]], dtype=np.float32))


def test_transparency_lies_on_white():
    assert open_picture(encode(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG"), LIMIT).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(encode(Image.new("RGBA", (9, 9), (255, 0, 0, 128)), "PNG"), LIMIT).getpixel((0, 0)) == (255, 127, 127)
    assert open_picture(encode(Image.new("LA", (9, 9), (0, 51)), "PNG"), LIMIT).getpixel((0, 0)) == (204, 204, 204)
    # one colour or palette entry declared transparent
    assert open_picture(encode(Image.new("RGB", (9, 9), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), LIMIT).getpixel((0, 0)) == (255,) * 3
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for kind in ("PNG", "GIF"):
        assert open_picture(encode(palette, kind, transparency=1), LIMIT).getpixel((0, 0)) == (255, 255, 255)
        assert open_picture(encode(palette, kind), LIMIT).getpixel((0, 0)) == (10, 20, 30)


def test_palette_with_graded_transparency():
    palette = Image.new("P", (9, 9), 0)
    palette.putpalette([255, 0, 0])
    assert open_picture(encode(palette, "PNG", transparency=bytes([128])), LIMIT).getpixel((0, 0)) == (255, 127, 127)


def test_cmyk_and_one_bit():
    # libjpeg writes CMYK with the Adobe marker, and Pillow inverted, as Photoshop does
    read = pixels(open_picture(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100), LIMIT))
    assert np.abs(read - [255, 0, 0]).max() <= 3
    assert open_picture(encode(Image.new("CMYK", (9, 9), (255, 0, 0, 0)), "TIFF"), LIMIT).getpixel((0, 0)) == (0, 255, 255)
    assert open_picture(encode(Image.new("1", (9, 9), 1), "PNG"), LIMIT).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turns_the_picture_upright(kind):
    lying = Image.new("RGB", (40, 20), "red")
    lying.paste((0, 0, 255), (0, 0, 20, 20))  # blue on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: left becomes top
    upright = open_picture(encode(lying, kind, exif=exif), LIMIT)
    assert upright.size == (20, 40)
    assert np.abs(np.array(upright.getpixel((10, 5))) - [0, 0, 255]).max() < 8
    assert np.abs(np.array(upright.getpixel((10, 35))) - [255, 0, 0]).max() < 8


def test_broken_exif_costs_only_the_orientation():
    picture = noise()
    data = encode(picture, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert (pixels(open_picture(data, LIMIT)) == pixels(picture)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_only_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
    assert open_picture(data, LIMIT).getpixel((10, 10)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"this is a text that someone named .jpg\n" * 20,
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_undecodable(data):
    with pytest.raises(BadPicture) as caught:
        open_picture(data, LIMIT)
    assert caught.value.reason == "undecodable"
    assert caught.value.detail
    assert "0x" not in caught.value.detail  # no addresses in memory: the detail is the same in every run


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_truncated_files_are_undecodable(kind, share):
    data = encode(noise(size=(200, 150)), kind)
    with pytest.raises(BadPicture) as caught:
        open_picture(data[: int(len(data) * share)], LIMIT)
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_damaged_files_raise_bad_picture_or_nothing(kind):
    data = encode(noise(), kind)
    random = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks about odd metadata
        reasons = set()
        for _ in range(200):
            damaged = bytearray(data)
            for position in random.integers(0, min(len(data), 400), 5):
                damaged[position] = random.integers(0, 256)
            try:
                assert open_picture(bytes(damaged), LIMIT).mode == "RGB"
            except BadPicture as bad:
                reasons.add(bad.reason)
    assert reasons <= {"undecodable", "too_large"}


def test_the_number_of_pixels_is_limited_from_the_header():
    bomb = png(header(50_000, 50_000), chunk(b"IDAT", zlib.compress(bytes(1000))))
    absurd = png(header(2**31 - 1, 2**31 - 1), chunk(b"IDAT", b""))
    for data in (bomb, absurd, encode(Image.new("L", (1001, 1000)), "PNG")):
        with pytest.raises(BadPicture) as caught:
            open_picture(data, LIMIT)
        assert caught.value.reason == "too_large"
        assert "more than the 1,000,000 allowed" in caught.value.detail
    assert open_picture(encode(Image.new("L", (1000, 1000)), "PNG"), LIMIT).size == (1000, 1000)


def test_zip_bomb_in_a_text_chunk_is_undecodable():
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    with pytest.raises(BadPicture) as caught:
        open_picture(png(header(1, 1), text, chunk(b"IDAT", zlib.compress(b"\0\0"))), LIMIT)
    assert caught.value.reason == "undecodable"


def test_pillows_own_limit_neither_interferes_nor_changes(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encode(noise(), "PNG")
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda _: open_picture(data, LIMIT).size, range(50)))
    assert sizes == [(40, 30)] * 50
    assert decode(data).size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_decode_is_the_plain_conversion():
    for data in (encode(noise(), "JPEG"), encode(noise("RGBA"), "PNG"), encode(noise("L"), "PNG")):
        assert (pixels(decode(data)) == pixels(Image.open(BytesIO(data)).convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_both_byte_orders_of_16_bits_are_scaled(mode):
    data = np.array([[0, 32768, 65535]], np.uint16)
    picture = Image.frombytes(mode, (3, 1), data.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    buffer = BytesIO()
    picture.save(buffer, "TIFF")
    assert np.asarray(open_picture(buffer.getvalue(), 100))[0, :, 0].tolist() == [0, 128, 255]


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_where_that_is_enough():
    data = encode(noise(size=(800, 400)), "JPEG")
    assert decode(data).size == (800, 400)
    small = decode(data, enough=100)
    assert small.size == (200, 100)  # a quarter: both sides still have what is enough
    assert small.mode == "RGB"
    assert decode(data, enough=1000).size == (800, 400)
    assert decode(encode(noise(size=(800, 400)), "PNG"), enough=100).size == (800, 400)  # other formats can't be


def made(mode: str, kind: str, **options: object) -> bytes:
    gradient = Image.linear_gradient("L").resize((24, 20))
    return encode((gradient if mode == "I;16" else gradient.convert("RGB")).convert(mode), kind, **options)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (made("RGB", "PNG"), True),
        (made("RGB", "JPEG"), True),
        (made("CMYK", "JPEG"), True),
        (made("L", "JPEG"), True),
        (made("1", "PNG"), True),
        (made("P", "PNG"), True),
        (made("P", "GIF"), True),
        (made("P", "GIF", save_all=True, append_images=[Image.new("P", (24, 20), 3)]), True),
        (made("RGB", "WEBP"), True),
        (made("RGB", "JPEG", exif=turned(1)), True),
        (made("RGB", "JPEG", exif=turned(6)), False),
        (made("P", "PNG", transparency=0), False),
        (made("RGBA", "PNG"), False),
        (made("LA", "PNG"), False),
        (made("I;16", "PNG"), False),
    ],
)
def test_what_is_known_to_decode_plainly_does(data, plain):
    """Every picture was decoded a second time to find out; a wrong answer would keep bytes that show something else."""
    found = open_untrusted(data, 10**6)
    assert found.plain == plain
    if found.plain:
        assert decode(data).tobytes() == found.picture.tobytes()


def png_of_16_bits(values: np.ndarray, clear: int | None) -> bytes:
    """Grey, with one transparent value: Pillow writes no such file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
    hidden = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    return b"\x89PNG\r\n\x1a\n" + head + hidden + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_a_transparent_grey_value_of_16_bits():
    """It was sought among the scaled values: dark pixels became white, and the transparent ones stayed grey."""
    values = np.full((20, 40), 100, np.uint16)
    values[10:] = 0x8000
    found = pixels(open_picture(png_of_16_bits(values, 0x8000), LIMIT))[..., 0]
    assert (found[:10] == 0).all() and (found[10:] == 255).all()
    assert (pixels(open_picture(png_of_16_bits(values, None), LIMIT))[10:] == 128).all()


@pytest.mark.parametrize(("mode", "dtype", "most"), [("I;16", "<u2", 65535), ("F", "<f4", 1.0)])
def test_scans_in_which_zero_is_white(mode, dtype, most):
    """Only pictures of 8 bits were turned; X-rays of 16 came out as negatives."""
    ramp = np.linspace(0, most, 40 * 30).reshape(30, 40).astype(dtype)
    shown = {}
    for meaning in (0, 1):
        data = encode(Image.fromarray(ramp), "TIFF", tiffinfo={262: meaning})
        assert Image.open(BytesIO(data)).mode == mode and Image.open(BytesIO(data)).tag_v2[262] == meaning
        shown[meaning] = pixels(open_picture(data, LIMIT))
    assert np.abs(shown[0] - (255 - shown[1])).max() <= 1 and shown[1][0, 0, 0] == 0


def test_grey_with_associated_alpha():
    values = np.full((8, 8, 2), 128, np.uint8)
    values[..., 0] = 64  # already times its alpha
    data = encode(Image.fromarray(values, "LA"), "TIFF")
    with_alpha = data.replace(struct.pack("<HHIHH", 338, 3, 1, 2, 0), struct.pack("<HHIHH", 338, 3, 1, 1, 0))
    assert with_alpha != data and Image.open(BytesIO(with_alpha)).mode == "La"
    assert np.abs(pixels(open_picture(with_alpha, LIMIT)) - (64 + 127)).max() <= 1  # half of the white behind it


def test_many_comments_before_something_that_is_no_drawing():
    """Each further comment doubled the time: forty took hours."""
    with pytest.raises(BadPicture, match="not a JPEG"):
        open_picture(b"<!---->" * 500 + b"<x", LIMIT)
    with pytest.raises(BadPicture, match="an SVG drawing"):
        open_picture(b"\xef\xbb\xbf" + b"<!-- a --> " * 50 + b"<svg>", LIMIT)
