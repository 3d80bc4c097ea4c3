"""The report's drawings: loss curves, similarity histograms, before/after grids; as PNG files, or as SVG in the page's colours.

Same input, same bytes: fixed fonts and hash salt, no metadata.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from assets.report.similarity import Similarities

CHANGE_BIN = 5.0  # points
MAX_PNG_BYTES = 390_000  # the pictures are in git and in the README

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


VALIDATION_LINES = (  # by key of a history's row
    Line("validation_image_to_image", "image→image mAP", BLUE, "-"),
    Line("validation_text_to_image", "text→image R@5", ORANGE, "--"),
)
SIMILARITY_LINES = (  # by attribute of Similarities
    Line("other_class", "images of two classes", ORANGE, "--"),
    Line("same_class", "images of one class", BLUE, "-"),
    Line("image_caption", "image and own caption", VIOLET, ":"),
)


def draw_loss(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Training loss by epoch, from the rows of a history."""
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, [row["loss"] for row in rows], color=VIOLET, marker="o", markersize=3, linewidth=1.6)
    _epoch_axis(axes, epochs)


def draw_validation(axes: Axes, rows: Sequence[Mapping[str, Any]], limits: tuple[float, float] | None) -> None:
    """The validation measures by epoch, in percent; a ring marks the highest value. `limits` are None where no measure was taken."""
    for line in VALIDATION_LINES:
        points = _points(rows, line.key)
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, color=line.color, linestyle=line.style, marker="o", markersize=3, linewidth=1.6)
            best = int(np.argmax(values))
            axes.plot(epochs[best], values[best], "o", markersize=8, markerfacecolor="none", markeredgecolor=line.color)
    _epoch_axis(axes, [row["epoch"] for row in rows])
    if limits:
        axes.set_ylim(*limits)
    else:
        axes.text(0.5, 0.5, "no validation images", transform=axes.transAxes, ha="center", va="center", color=MUTED)
        axes.set_yticks([])


def validation_limits(histories: Iterable[Sequence[Mapping[str, Any]]]) -> tuple[float, float] | None:
    """A percent axis that all histories share, so that they can be compared by eye; None without any value."""
    values = [value for rows in histories for line in VALIDATION_LINES for _, value in _points(rows, line.key)]
    if not values:
        return None
    room = max(1.0, 0.08 * (max(values) - min(values)))
    return min(values) - room, max(values) + room


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(row["epoch"], 100 * row[key]) for row in rows if row.get(key) is not None]


def _epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    axes.set_xlim(min(epochs) - 0.4, max(epochs) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(visible=False, axis="x")


@dataclass(frozen=True)
class HistogramScale:
    """Bins and height that several histograms share, so that they can be compared by eye."""

    bins: np.ndarray
    top: float


def histogram_scale(found: Sequence[Similarities]) -> HistogramScale:
    parts = [values for each in found for line in SIMILARITY_LINES if len(values := getattr(each, line.key))]
    low, high = min(map(np.min, parts)), max(map(np.max, parts))
    bins = np.linspace(np.floor(low * 20) / 20, max(np.ceil(high * 20), np.floor(low * 20) + 1) / 20, 61)
    return HistogramScale(bins, 1.05 * max(np.histogram(values, bins, density=True)[0].max() for values in parts))


def draw_similarities(axes: Axes, found: Similarities, scale: HistogramScale, threshold: float | None) -> None:
    """The three histograms; a line at the cosine from which on two images are best called one class, where that is given."""
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.0)
    for line in SIMILARITY_LINES:
        values = getattr(found, line.key)
        if len(values):
            heights, _ = np.histogram(values, scale.bins, density=True)
            axes.stairs(heights, scale.bins, fill=True, color=line.color, alpha=0.13, linewidth=0)
            axes.stairs(heights, scale.bins, color=line.color, linewidth=1.6, linestyle=line.style)
    axes.set_xlim(scale.bins[0], scale.bins[-1])
    axes.set_ylim(0, scale.top)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("cosine")


def draw_changes(axes: Axes, points: Sequence[float]) -> None:
    """How many classes gained and lost how much: `points` has each class's difference; a bar is CHANGE_BIN wide."""
    reach = max(CHANGE_BIN, CHANGE_BIN * np.ceil(max(map(abs, points), default=1.0) / CHANGE_BIN))
    edges = np.arange(-reach, reach + CHANGE_BIN, CHANGE_BIN)
    heights, _ = np.histogram(points, edges)
    colors = [WRONG if edge < 0 else RIGHT for edge in edges[:-1]]
    axes.bar(edges[:-1], heights, width=CHANGE_BIN * 0.86, align="edge", color=colors)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, symmetric=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("change of a class’s mAP, points")
    axes.set_ylabel("classes")


@contextmanager
def _styled() -> Iterator[None]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a class name in another script
        yield


def svg_panel(size: tuple[float, float], draw: Callable[..., None], *data: Any) -> str:
    """`draw(axes, *data)` at width × height inches as an <svg> element without idle ids; colours and font are the page's."""
    with _styled():
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


def _legend(figure: Figure, lines: Sequence[Line]) -> None:
    handles = [Line2D([], [], color=line.color, linestyle=line.style, linewidth=1.6, label=line.name) for line in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(lines))


def loss_figure(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss above, validation below; a column a recipe."""
    with _styled():
        figure = Figure(figsize=(2.9 * len(histories), 4.6), layout="constrained")
        grid = figure.subplots(2, len(histories), squeeze=False)
        limits = validation_limits(histories.values())
        for column, (recipe, rows) in enumerate(histories.items()):
            draw_loss(grid[0][column], rows)
            draw_validation(grid[1][column], rows, limits)
            grid[0][column].set_title(f"{recipe}: loss")
            grid[1][column].set_title(f"{recipe}: validation, %")
            grid[1][column].set_xlabel("epoch")
        _legend(figure, VALIDATION_LINES)
        return figure


def similarity_figure(found: Mapping[str, Similarities]) -> Figure:
    with _styled():
        figure = Figure(figsize=(4.8 * len(found), 3.1), layout="constrained")
        scale = histogram_scale(list(found.values()))
        for axes, (recipe, each) in zip(np.ravel(figure.subplots(1, len(found))), found.items(), strict=True):
            draw_similarities(axes, each, scale, None)
            axes.set_title(recipe)
        _legend(figure, SIMILARITY_LINES)
        return figure


@dataclass(frozen=True)
class GridRow:
    """One query and what each recipe found. `query` is a picture, uint8 [side, side, 3], or a text; a tile is (picture, right)."""

    query: np.ndarray | str
    name: str
    found: Mapping[str, Sequence[tuple[np.ndarray, bool]]]


def before_after_figure(rows: Sequence[GridRow], credit: str) -> Figure:
    """A row a query: the query, then a block of framed tiles for each recipe. The credit stands below."""
    blocks = list(rows[0].found)
    tiles = max(len(row.found[block]) for row in rows for block in blocks)
    gap, row_height, top = 0.45, 1.32, 0.5  # in tiles
    query_width = 1.0 if not isinstance(rows[0].query, str) else 2.2
    width = query_width + len(blocks) * (gap + tiles)
    credit_lines = textwrap.wrap(credit, int(width * 15.5))
    height = top + len(rows) * row_height + 0.19 * len(credit_lines) + 0.1
    inches = 0.82  # a tile's side
    with _styled():
        figure = Figure(figsize=((width + 0.2) * inches, height * inches), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(-0.08, width + 0.12)
        axes.set_ylim(height, 0)
        axes.axis("off")
        starts = {block: query_width + gap + position * (tiles + gap) for position, block in enumerate(blocks)}
        _text(axes, 0, 0.28, "query", color=MUTED)
        for block, start in starts.items():
            _text(axes, start, 0.28, f"{block}: first {tiles}", color=INK, weight="bold")
        for position, row in enumerate(rows):
            above = top + position * row_height
            if isinstance(row.query, str):
                _text(axes, 0, above + 0.46, textwrap.fill(f"“{row.query}”", 21), size=10, va="center")
            else:
                axes.imshow(row.query, extent=(0.02, 0.98, above + 0.94, above + 0.02), interpolation="antialiased", aspect="auto")
                _text(axes, 0, above + 1.1, textwrap.shorten(row.name, 20, placeholder="…"), size=7, color=MUTED)
            for block, start in starts.items():
                found = row.found[block]
                for column, (picture, right) in enumerate(found):
                    _framed(axes, start + column, above, picture, right)
                count = sum(right for _, right in found)
                _text(axes, start, above + 1.1, f"{count} of {len(found)} right", size=7, color=MUTED)
        for line, text in enumerate(credit_lines):
            _text(axes, 0, height - 0.1 - 0.19 * (len(credit_lines) - 1 - line), text, size=6.5, color=MUTED)
        axes.set_xlim(-0.08, width + 0.12)  # imshow moves the limits
        axes.set_ylim(height, 0)
        return figure


def _framed(axes: Axes, left: float, above: float, picture: np.ndarray, right: bool) -> None:
    """A tile of side 1 with a solid frame and a tick where right, a dashed frame and a cross where wrong."""
    axes.imshow(picture, extent=(left + 0.09, left + 0.91, above + 0.87, above + 0.05), interpolation="antialiased", aspect="auto")
    color = RIGHT if right else WRONG
    line = "solid" if right else (0, (2.4, 1.8))
    axes.add_patch(Rectangle((left + 0.04, above), 0.92, 0.92, fill=False, edgecolor=color, linewidth=1.5, linestyle=line))
    axes.plot(left + 0.88, above + 0.84, "o", markersize=10, color=color, markeredgecolor="white", markeredgewidth=1)
    tick, cross = ([-0.045, -0.01, 0.055], [0, 0.04, -0.045]), ([-0.04, 0.04, np.nan, -0.04, 0.04], [-0.04, 0.04, np.nan, 0.04, -0.04])
    across, down = np.array(tick if right else cross)
    axes.plot(left + 0.88 + across, above + 0.84 + down, color="white", linewidth=1.5, solid_capstyle="round")


def _text(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    settings: dict[str, Any] = {"size": 9, "va": "baseline"} | look
    axes.text(x, y, text, parse_math=False, **settings)


def write_png(figure: Figure, path: Path) -> None:
    """Save at 150 dpi; where that is more than MAX_PNG_BYTES with 256 colours instead, then smaller."""
    FigureCanvasAgg(figure)
    with _styled():
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
