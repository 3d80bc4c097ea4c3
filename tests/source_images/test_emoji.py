"""The joining of emoji and drawings, on small icon sets made here in Iconify's format."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from assets.errors import UserError
from assets.source_images.emoji import VENDORS, read_emoji, slug

LEFT_RED = '<path fill="red" d="M0 0h16v32H0z"/>'  # the left half of 32 × 32
ALL_BLUE = '<path fill="blue" d="M0 0h32v32H0z"/>'
FLAT = '<path fill="blue" d="M0 0h32v16H0z"/>'
NAMES = [
    {"hexcode": "2764-FE0F", "label": "red heart", "tags": ["love", "Red Heart", "love", "heart"], "group": 0, "subgroup": 1},
    {"hexcode": "1F452", "label": "woman’s hat", "tags": ["hat"], "group": 1, "subgroup": 0},
    {"hexcode": "1F600", "label": "grinning face", "group": 0, "subgroup": 0, "skins": [{"hexcode": "1F600-1F3FB", "label": "light"}]},
    {"hexcode": "1F1E6", "label": "regional indicator A"},
]
MESSAGES = {
    "groups": [{"order": 0, "message": "smileys"}, {"order": 1, "message": "things"}],
    "subgroups": [{"order": 0, "message": "clothing"}, {"order": 1, "message": "hearts"}],
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    def write(name: str, content: object) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")

    write("emojibase-data/en/data.json", NAMES)
    write("emojibase-data/en/messages.json", MESSAGES)
    for vendor in VENDORS:
        write(f"@iconify-json/{vendor}/icons.json", {"prefix": vendor, "icons": {}, "width": 32, "height": 32})
        write(f"@iconify-json/{vendor}/chars.json", {})
        write(
            f"@iconify-json/{vendor}/info.json",
            {"name": vendor.title(), "author": {"name": "A. Uthor", "url": "https://example.org"}, "license": {"spdx": "CC-BY-4.0"}},
        )
    # noto names by code; its own "red-heart" is another picture, to tell which candidate wins
    noto = {"heart": {"body": ALL_BLUE}, "red-heart": {"body": LEFT_RED}, "regional-indicator-a": {"body": ALL_BLUE}}
    write("@iconify-json/noto/icons.json", {"prefix": "noto", "icons": noto, "width": 32, "height": 32})
    write("@iconify-json/noto/chars.json", {"2764": "heart", "1f600": "smile", "1f1e6": "regional-indicator-a"})
    # twemoji has no codes: noto's name for the code is borrowed; the hat is found by its English name, as an alias
    write(
        "@iconify-json/twemoji/icons.json",
        {
            "prefix": "twemoji",
            "icons": {"hat": {"body": LEFT_RED}, "smile": {"body": FLAT, "height": 16}},
            "aliases": {"womans-hat": {"parent": "hat", "hFlip": True}},
            "width": 32,
            "height": 32,
        },
    )
    return tmp_path


def test_join(packages):
    rows = list(read_emoji(packages, ["twemoji", "noto"], 32))
    assert [row["id"] for row in rows] == ["1f452-twemoji", "1f600-twemoji", "2764-fe0f-noto"]
    image, heart = rows[2].pop("image"), rows[2]
    assert heart == {
        "id": "2764-fe0f-noto",
        "label": "2764-FE0F",
        "class_name": "red heart",
        "group": "smileys",
        "family": "heart",
        "given_split": None,
        "captions": ["love", "heart", "hearts"],  # distinct, in order, the name left out, the subgroup last
        "source": "noto",
        "license": "CC-BY-4.0",
        "attribution": "Noto by A. Uthor, https://example.org",
    }
    assert Image.open(BytesIO(image)).convert("RGBA").getpixel((4, 4)) == (0, 0, 255, 255)  # by code before by name
    assert rows[1]["captions"] == ["clothing"]  # an emoji without tags


def test_drawing(packages):
    hat, smile, _ = (Image.open(BytesIO(row["image"])).convert("RGBA") for row in read_emoji(packages, ["twemoji", "noto"], 64))
    assert hat.size == smile.size == (64, 64)
    assert hat.getpixel((16, 32)) == (0, 0, 0, 0)
    assert hat.getpixel((48, 32)) == (255, 0, 0, 255)
    # an icon of 32 × 16 is centred in its square
    assert [smile.getpixel((32, y))[3] for y in (4, 32, 60)] == [0, 255, 0]


def test_drawings_are_the_same_every_time(packages):
    assert list(read_emoji(packages, ["noto", "twemoji"], 40)) == list(read_emoji(packages, ["twemoji", "noto"], 40))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("woman’s hat", "womans-hat"), ("keycap: #", "keycap"), ("flag: Côte d'Ivoire", "flag-c-te-divoire"), ("OK button", "ok-button")],
)
def test_slug(name, expected):
    assert slug(name) == expected


@pytest.mark.parametrize("vendors", [["noto", "apple"], ["noto", "noto"]])
def test_wrong_vendors(packages, vendors):
    with pytest.raises(UserError, match=r"source_images\.sources, vendors: .*Allowed, each once: emojione, .*twemoji"):
        list(read_emoji(packages, vendors, 32))
