"""Section «Training» of the page: loss and validation of every recipe by epoch, what was kept, and the same curves as a picture file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from assets import artifacts
from assets.recipes import BASE
from assets.report.drawing import BLUE, MUTED, ORANGE, VIOLET, Line, legend, legend_lines, styled, svg_panel

Rows = Sequence[Mapping[str, Any]]  # the start (epoch 0, without a loss), then one for each validation
History = Mapping[str, Any]  # of a training: its `rows`, and what was `kept` of them
PANEL = (2.3, 1.5)  # inches
LINES = (  # by key of a history's row
    Line("validation_image_to_image", "image→image mAP", BLUE, "-"),
    Line("validation_text_to_image", "text→image mAP", ORANGE, "--"),
)


def read_histories(recipes: Iterable[str]) -> dict[str, History]:
    """By recipe, for those that were trained as a recipe; base has no history of its own."""
    files = {recipe: artifacts.history_file(recipe) for recipe in recipes}
    return {recipe: artifacts.read_json(file) for recipe, file in files.items() if file.exists()}


def read_alignment() -> History | None:
    """How base was aligned, where this project trained it; None where it is a checkpoint of others."""
    card = artifacts.read_json(artifacts.model_dir(BASE) / artifacts.MODEL_CARD)
    return {"rows": card["alignment"], "kept": card["kept"]} if "alignment" in card else None


def trainings(histories: Mapping[str, History], alignment: History | None, about: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every training with what its recipe is, base first where this project trained it."""
    trained = ({BASE: alignment} if alignment else {}) | dict(histories)
    return [
        {
            "recipe": recipe,
            "meaning": about[recipe],
            **each,
            "epochs": each["rows"][-1]["epoch"],
            "losses": [row["loss"] for row in each["rows"] if row["loss"] is not None],
            # of a base alone: the towers have a way back, and more steps take them further from what they knew
            "longer": recipe == BASE and each["kept"]["best_is_last"],
        }
        for recipe, each in trained.items()
    ]


def training_view(trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The section's curves, drawn on one percent axis."""
    limits = validation_limits(trained)
    panels = [
        {
            **each,
            "loss": Markup(svg_panel(PANEL, draw_loss, each["rows"])),
            "validation": Markup(svg_panel(PANEL, draw_validation, each, limits)),
        }
        for each in trained
    ]
    return {"training": panels, "validation_legend": legend_lines(LINES)}


def loss_figure(histories: Mapping[str, History]) -> Figure:
    """Loss above, validation below; one column per recipe."""
    with styled():
        figure = Figure(figsize=(2.9 * len(histories), 4.6), layout="constrained")
        grid = figure.subplots(2, len(histories), squeeze=False)
        limits = validation_limits(histories.values())
        for column, (recipe, each) in enumerate(histories.items()):
            draw_loss(grid[0][column], each["rows"])
            draw_validation(grid[1][column], each, limits)
            grid[0][column].set_title(f"{recipe}: loss")
            grid[1][column].set_title(f"{recipe}: validation, %")
            grid[1][column].set_xlabel("epoch")
        legend(figure, LINES)
        return figure


def draw_loss(axes: Axes, rows: Rows) -> None:
    """Training loss by epoch; the start has none."""
    epochs, losses = zip(*((row["epoch"], row["loss"]) for row in rows if row["loss"] is not None), strict=True)
    axes.plot(epochs, losses, color=VIOLET, marker="o", markersize=3, linewidth=1.6)
    _epoch_axis(axes, [row["epoch"] for row in rows])


def draw_validation(axes: Axes, history: History, limits: tuple[float, float] | None) -> None:
    """The validation measures by epoch, in percent; a ring marks what was kept. `limits` are None where nothing was measured.

    A dotted line is the way back: a quarter of the way to epoch 8 stands at epoch 2, with its own measures.
    """
    kept = history["kept"]
    for line in LINES:
        if points := _points(history["rows"], line.key):
            axes.plot(*zip(*points, strict=True), color=line.color, linestyle=line.style, marker="o", markersize=3, linewidth=1.6)
            if way := _points(_way_back(history), line.key):
                axes.plot(*zip(*way, strict=True), color=line.color, linestyle=":", marker="s", markersize=2, linewidth=1)
            place = kept["share"] * kept["epoch"]
            axes.plot(place, dict(points + way)[place], "o", markersize=8, markerfacecolor="none", markeredgecolor=line.color)
    _epoch_axis(axes, [row["epoch"] for row in history["rows"]])
    if limits:
        axes.set_ylim(*limits)
    else:
        axes.text(0.5, 0.5, "no validation images", transform=axes.transAxes, ha="center", va="center", color=MUTED)
        axes.set_yticks([])


def validation_limits(histories: Iterable[History]) -> tuple[float, float] | None:
    """A percent axis that all histories share, so that they can be compared by eye; None without any value."""
    drawn = [row for history in histories for row in (*history["rows"], *_way_back(history))]
    values = [value for line in LINES for _, value in _points(drawn, line.key)]
    if not values:
        return None
    room = max(1.0, 0.08 * (max(values) - min(values)))
    return min(values) - room, max(values) + room


def _way_back(history: History) -> Rows:
    """Its points as rows, from the start to the epoch where it ends, `epoch` being their place between; empty where none was tried."""
    rows, tried = history["rows"], sorted(history["kept"]["way_back"], key=lambda point: point["share"])
    ends = [row for row in rows if row["epoch"] in (0, *(point["epoch"] for point in tried))]
    return [ends[0], *({**point, "epoch": point["share"] * point["epoch"]} for point in tried), ends[-1]] if tried else []


def _points(rows: Rows, key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], 100 * row[key]) for row in rows if row.get(key) is not None]


def _epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    axes.set_xlim(min(epochs) - 0.4, max(epochs) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(visible=False, axis="x")
