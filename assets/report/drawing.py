"""How the report draws: colours, line styles and fonts, and a figure as a PNG file or as SVG in the page's colours.

What is drawn is in the module of each section. The same input gives the same bytes: fixed fonts and hash salt, no metadata.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

MAX_PNG_BYTES = 390_000  # README shows some of the pictures, so they are in git

# Colours that stay apart for colour-blind eyes; each has a line style or a mark of its own as well.
INK, MUTED, FAINT = "#1d1f21", "#5c6166", "#dcd9d2"
BLUE, ORANGE, VIOLET = "#0b6394", "#b4530a", "#6b4aa5"
RIGHT, WRONG = "#0b7350", "#b3261e"
PAGE_COLORS = {INK: "--ink", MUTED: "--muted", FAINT: "--line", BLUE: "--blue", ORANGE: "--orange", VIOLET: "--violet"}
PAGE_COLORS |= {RIGHT: "--good", WRONG: "--bad"}

STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "onespace",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True)
class Line:
    key: str
    name: str
    color: str
    style: Literal["-", "--", ":"]


@contextmanager
def styled() -> Iterator[None]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a class name in another script
        yield


def svg_panel(size: tuple[float, float], draw: Callable[..., None], *data: Any) -> str:
    """`draw(axes, *data)` at width × height inches as an <svg> element without idle ids; colours and font are the page's."""
    with styled():
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot(), *data)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)
    for color, variable in PAGE_COLORS.items():
        svg = svg.replace(color, f"var({variable})")
    return svg.replace("'DejaVu Sans'", "inherit")


def legend_lines(lines: Sequence[Line]) -> list[dict[str, str]]:
    """For a legend in the page: each line's name, dash pattern of an SVG stroke, and the page's colour."""
    dashes = {"-": "none", "--": "5 3", ":": "1.5 2.5"}
    return [{"name": line.name, "dash": dashes[line.style], "color": f"var({PAGE_COLORS[line.color]})"} for line in lines]


def legend(figure: Figure, lines: Sequence[Line]) -> None:
    handles = [Line2D([], [], color=line.color, linestyle=line.style, linewidth=1.6, label=line.name) for line in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(lines))


def write_png(figure: Figure, path: Path) -> None:
    """Save at 150 dpi; where that is more than MAX_PNG_BYTES with 256 colours instead, then smaller."""
    FigureCanvasAgg(figure)
    with styled():
        for dpi in (150, 110, 80):
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
            picture = Image.open(buffer).convert("RGB")
            for reduced in (picture, picture.quantize(256, dither=Image.Dither.NONE)):
                encoded = io.BytesIO()
                reduced.save(encoded, "PNG", optimize=True)
                if encoded.tell() <= MAX_PNG_BYTES:
                    path.write_bytes(encoded.getvalue())
                    return
    raise ValueError(f"{path.name} is {encoded.tell()} bytes even at 80 dpi with 256 colours")
