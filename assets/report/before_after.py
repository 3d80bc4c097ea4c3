"""The picture files of queries and what base and the published recipe find, for README and other readers without the page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from assets.evaluations import TestSplit
from assets.pictures.credits import credit_line
from assets.pictures.small import tile
from assets.report.drawing import INK, MUTED, RIGHT, WRONG, styled
from assets.report.queries import Query

QUERIES, HITS, TILE = 4, 6, 120  # in a picture; pixels


@dataclass(frozen=True)
class GridRow:
    """One query and what each recipe found. `query` is a picture, uint8 [side, side, 3], or a text; a tile is (picture, right)."""

    query: np.ndarray | str
    name: str
    found: Mapping[str, Sequence[tuple[np.ndarray, bool]]]


def grid(drawn: Sequence[Query], pictures: Mapping[str, bytes], test: TestSplit) -> Figure:
    """The queries whose hits changed most, with what each recipe finds. `pictures` by id."""
    queries = most_changed(drawn, QUERIES, HITS)
    rows = {hit.row for query in queries for found in query.answers.values() for hit in found.hits[:HITS]}
    rows |= {query.row for query in queries if query.row is not None}
    return before_after_figure([_grid_row(query, pictures, test) for query in queries], credit_line(test.credits(sorted(rows))))


def most_changed(queries: Sequence[Query], count: int, k: int) -> list[Query]:
    """Up to `count` of the queries, those whose recipes differ most in how many of the first k hits are right, for better or worse.

    Ties in the order given.
    """

    def change(query: Query) -> int:
        right = [sum(hit.right for hit in found.hits[:k]) for found in query.answers.values()]
        return max(right) - min(right)

    return sorted(queries, key=change, reverse=True)[:count]


def _grid_row(query: Query, pictures: Mapping[str, bytes], test: TestSplit) -> GridRow:
    def drawn(row: int) -> np.ndarray:
        (identifier,) = test.ids([row])
        return tile(pictures[identifier], TILE)

    found = {recipe: [(drawn(hit.row), hit.right) for hit in each.hits[:HITS]] for recipe, each in query.answers.items()}
    return GridRow(query.name if query.row is None else drawn(query.row), query.name, found)


def before_after_figure(rows: Sequence[GridRow], credit: str) -> Figure:
    """One row per query: the query, then a block of framed tiles for each recipe. The credit stands below."""
    blocks = list(rows[0].found)
    tiles = max(len(row.found[block]) for row in rows for block in blocks)
    gap, row_height, top = 0.45, 1.32, 0.5  # in tiles
    query_width = 1.0 if not isinstance(rows[0].query, str) else 2.2
    width = query_width + len(blocks) * (gap + tiles)
    credit_lines = textwrap.wrap(credit, int(width * 15.5))
    height = top + len(rows) * row_height + 0.19 * len(credit_lines) + 0.1
    inches = 0.82  # a tile's side
    with styled():
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
