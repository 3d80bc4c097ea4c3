"""Section «Training» of the page: loss and validation of every recipe by epoch, and the same curves as a picture file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from assets import artifacts
from assets.measures import MEASURE_OF
from assets.recipes import BASE
from assets.report.drawing import BLUE, MUTED, ORANGE, VIOLET, Line, legend, legend_lines, styled, svg_panel

History = Sequence[Mapping[str, Any]]  # of a training, one row per epoch
PANEL = (2.3, 1.5)  # inches
LINES = (  # by key of a history's row
    Line("validation_image_to_image", MEASURE_OF["image_to_image.map"].name, BLUE, "-"),
    Line("validation_text_to_image", MEASURE_OF["text_to_image.recall_at_5"].name, ORANGE, "--"),
)


def read_histories(recipes: Iterable[str]) -> dict[str, History]:
    """By recipe, for those that were trained as a recipe; base has no history of its own."""
    files = {recipe: artifacts.history_file(recipe) for recipe in recipes}
    return {recipe: artifacts.read_json(file)["rows"] for recipe, file in files.items() if file.exists()}


def read_alignment() -> History | None:
    """How base was aligned, one row per epoch, where this project trained it; None where it is a checkpoint of others."""
    found: History | None = artifacts.read_json(artifacts.model_dir(BASE) / artifacts.MODEL_CARD).get("alignment")
    return found


def trainings(histories: Mapping[str, History], alignment: History | None, about: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every training with what its recipe is, base first where this project trained it."""
    trained = ({BASE: alignment} if alignment else {}) | dict(histories)
    return [{"recipe": recipe, "meaning": about[recipe], "rows": each} for recipe, each in trained.items()]


def training_view(trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The section's curves, drawn on one percent axis."""
    limits = validation_limits(each["rows"] for each in trained)
    panels = [
        {
            **each,
            "loss": Markup(svg_panel(PANEL, draw_loss, each["rows"])),
            "validation": Markup(svg_panel(PANEL, draw_validation, each["rows"], limits)),
        }
        for each in trained
    ]
    return {"training": panels, "validation_legend": legend_lines(LINES)}


def loss_figure(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss above, validation below; one column per recipe."""
    with styled():
        figure = Figure(figsize=(2.9 * len(histories), 4.6), layout="constrained")
        grid = figure.subplots(2, len(histories), squeeze=False)
        limits = validation_limits(histories.values())
        for column, (recipe, rows) in enumerate(histories.items()):
            draw_loss(grid[0][column], rows)
            draw_validation(grid[1][column], rows, limits)
            grid[0][column].set_title(f"{recipe}: loss")
            grid[1][column].set_title(f"{recipe}: validation, %")
            grid[1][column].set_xlabel("epoch")
        legend(figure, LINES)
        return figure


def draw_loss(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Training loss by epoch, from the rows of a history."""
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, [row["loss"] for row in rows], color=VIOLET, marker="o", markersize=3, linewidth=1.6)
    _epoch_axis(axes, epochs)


def draw_validation(axes: Axes, rows: Sequence[Mapping[str, Any]], limits: tuple[float, float] | None) -> None:
    """The validation measures by epoch, in percent; a ring marks the highest value. `limits` are None where nothing was measured."""
    for line in LINES:
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
    values = [value for rows in histories for line in LINES for _, value in _points(rows, line.key)]
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
