"""A figure as a file and as a part of the page."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from assets.report import drawing
from assets.report.drawing import BLUE, INK, svg_panel, write_png


def draw(axes: Axes, values: list[float]) -> None:
    axes.plot(values, color=BLUE)
    axes.axvline(0, color=INK)


def test_a_panel_takes_colours_and_font_from_the_page_and_is_the_same_every_time():
    svg = svg_panel((2, 1), draw, [1.0, 2.0])
    assert svg == svg_panel((2, 1), draw, [1.0, 2.0])
    assert "var(--blue)" in svg
    assert "var(--ink)" in svg
    assert BLUE not in svg
    assert "DejaVu" not in svg
    assert not re.search(r'<svg[^>]* (?:width|height)="', svg)  # the page's layout gives its size
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert set(re.findall(r' id="([^"]+)"', svg)) <= used  # panels do not share ids by accident


def test_a_picture_that_is_too_large_gets_fewer_colours_then_fewer_pixels(tmp_path, monkeypatch):
    figure = Figure(figsize=(4, 3))
    figure.add_subplot().imshow(np.random.default_rng(0).random((300, 400, 3)), aspect="auto")
    write_png(figure, tmp_path / "whole.png")
    monkeypatch.setattr(drawing, "MAX_PNG_BYTES", (tmp_path / "whole.png").stat().st_size // 3)
    write_png(figure, tmp_path / "small.png")
    assert (tmp_path / "small.png").stat().st_size <= drawing.MAX_PNG_BYTES
    with Image.open(tmp_path / "small.png") as small, Image.open(tmp_path / "whole.png") as whole:
        assert small.width < whole.width
    monkeypatch.setattr(drawing, "MAX_PNG_BYTES", 100)
    with pytest.raises(ValueError, match="even at 80 dpi"):
        write_png(figure, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
