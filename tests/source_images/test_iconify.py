"""An icon set as Iconify writes it: aliases, icons that are not square, mirrored ones."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets.source_images.iconify import IconSet, read_codes, read_icons, read_info, render, svg

HALF = '<rect width="8" height="16" fill="#f00"/>'  # the left half of 16 × 16


@pytest.fixture
def package(tmp_path: Path) -> Path:
    files = {
        "icons.json": {"icons": {"half": {"body": HALF}}, "aliases": {"other-half": {"parent": "half", "hFlip": True}}},
        "chars.json": {"1f600": "half"},
        "info.json": {"name": "Set", "author": {"name": "Ann", "url": "https://example.org"}, "license": {"spdx": "MIT"}},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def pixels(icons: IconSet, name: str, size: int = 16) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(render(svg(icons, name, size)))).convert("RGBA"))


def test_a_set_is_read_with_its_codes_and_whom_to_credit(package):
    icons = read_icons(package)
    assert ("half" in icons, "other-half" in icons, "none" in icons) == (True, True, False)
    assert read_codes(package) == {"1f600": "half"}
    assert read_info(package) == ("MIT", "Set by Ann, https://example.org")


def test_a_mirrored_alias_shows_the_other_half(package):
    icons = read_icons(package)
    half, other = pixels(icons, "half"), pixels(icons, "other-half")
    assert half[8, 2].tolist() == [255, 0, 0, 255] and half[8, 13, 3] == 0
    np.testing.assert_array_equal(other, half[:, ::-1])


def test_an_icon_that_is_not_square_is_centred():
    icons = IconSet({"wide": {"body": '<rect width="32" height="16" fill="#00f"/>', "width": 32}}, {}, 16, 16)
    drawn = pixels(icons, "wide")
    assert drawn[8, 8, 3] == 255
    assert drawn[1, 8, 3] == drawn[14, 8, 3] == 0, "above and below stays empty"
