"""Part «How similar is similar» of section health: cosines of two images of one class, of two classes, of an image and its caption.

Shapes: N images, C classes, T captions, P pairs, d embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from assets.report.drawing import BLUE, INK, ORANGE, VIOLET, Line, legend, legend_lines, styled, svg_panel

PAIRS = 100_000  # of each kind; where there are more, this many are drawn at random
CHUNK = 8192
PANEL = (3.8, 2.2)  # inches
LINES = (  # by attribute of Similarities
    Line("other_class", "images of two classes", ORANGE, "--"),
    Line("same_class", "images of one class", BLUE, "-"),
    Line("image_caption", "image and own caption", VIOLET, ":"),
)


@dataclass(frozen=True)
class Similarities:
    same_class: np.ndarray
    other_class: np.ndarray
    image_caption: np.ndarray

    @property
    def separation(self) -> float | None:
        """Percent of draws in which a pair of one class is more similar than a pair of two; equal counts half. None without pairs."""
        if not len(self.same_class) or not len(self.other_class):
            return None
        other = np.sort(self.other_class)
        below = np.searchsorted(other, self.same_class, "left") + np.searchsorted(other, self.same_class, "right")
        return float(100 * below.mean() / 2 / len(other))


@dataclass(frozen=True)
class Pairs:
    """Which pairs are compared, [P, 2] of rows each; the same for every recipe."""

    same_class: np.ndarray
    other_class: np.ndarray
    image_caption: np.ndarray  # image row, position of the caption


def draw_pairs(labels: np.ndarray, captions_of: Sequence[Sequence[str]], captions: Sequence[str], seed: int) -> Pairs:
    """Pairs of images by label [N], and every image with its own captions (positions in captions [T])."""
    generator = np.random.default_rng([seed, 3])
    _, codes = np.unique(labels.astype(str), return_inverse=True)
    other = generator.integers(len(codes), size=(2 * PAIRS, 2))
    other = other[codes[other[:, 0]] != codes[other[:, 1]]]
    number = {caption: position for position, caption in enumerate(captions)}
    own = [(row, number[caption]) for row, texts in enumerate(captions_of) for caption in texts]
    return Pairs(_same_class(codes, generator), other[:PAIRS], _at_most(np.array(own, np.int64).reshape(-1, 2), generator))


def _same_class(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Every pair of rows that share a code, or PAIRS of them drawn with replacement."""
    by_class, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts, pairs = np.cumsum(sizes) - sizes, sizes * (sizes - 1) // 2
    if pairs.sum() <= PAIRS:
        rows = [by_class[start : start + size] for start, size in zip(starts, sizes, strict=True)]
        return np.concatenate([np.stack([each[part] for part in np.triu_indices(len(each), 1)], axis=1) for each in rows])
    drawn = generator.choice(len(sizes), PAIRS, p=pairs / pairs.sum())
    first = generator.integers(sizes[drawn])
    second = generator.integers(sizes[drawn] - 1)
    second += second >= first
    return np.stack([by_class[starts[drawn] + first], by_class[starts[drawn] + second]], axis=1)


def _at_most(pairs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return pairs if len(pairs) <= PAIRS else pairs[np.sort(generator.choice(len(pairs), PAIRS, replace=False))]


def similarities(images: np.ndarray, captions: np.ndarray, pairs: Pairs) -> Similarities:
    """Cosines of the pairs, for unit-norm images [N, d] and captions [T, d]."""
    return Similarities(
        _cosines(images, images, pairs.same_class),
        _cosines(images, images, pairs.other_class),
        _cosines(images, captions, pairs.image_caption),
    )


def _cosines(left: np.ndarray, right: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), CHUNK):
        first, second = pairs[start : start + CHUNK].T
        found[start : start + CHUNK] = np.einsum("pd,pd->p", left[first], right[second])
    return found


def similarity_view(found: Mapping[str, Similarities], threshold: Mapping[str, float | None]) -> dict[str, Any]:
    """One panel per recipe on one scale. `threshold` by recipe: the cosine from which on two images are best called one class."""
    scale = histogram_scale(list(found.values()))
    panels = [
        {
            "recipe": recipe,
            "svg": Markup(svg_panel(PANEL, draw_similarities, each, scale, threshold[recipe])),
            "threshold": threshold[recipe],
            "medians": [(line.name, f"{np.median(cosines):.2f}") for line in LINES if len(cosines := getattr(each, line.key))],
            "separation": each.separation,
        }
        for recipe, each in found.items()
    ]
    return {"similarities": panels, "similarity_legend": legend_lines(LINES)}


def similarity_figure(found: Mapping[str, Similarities]) -> Figure:
    with styled():
        figure = Figure(figsize=(4.8 * len(found), 3.1), layout="constrained")
        scale = histogram_scale(list(found.values()))
        for axes, (recipe, each) in zip(np.ravel(figure.subplots(1, len(found))), found.items(), strict=True):
            draw_similarities(axes, each, scale, None)
            axes.set_title(recipe)
        legend(figure, LINES)
        return figure


@dataclass(frozen=True)
class HistogramScale:
    """Bins and height that several histograms share, so that they can be compared by eye."""

    bins: np.ndarray
    top: float


def histogram_scale(found: Sequence[Similarities]) -> HistogramScale:
    parts = [values for each in found for line in LINES if len(values := getattr(each, line.key))]
    low, high = min(map(np.min, parts)), max(map(np.max, parts))
    bins = np.linspace(np.floor(low * 20) / 20, max(np.ceil(high * 20), np.floor(low * 20) + 1) / 20, 61)
    return HistogramScale(bins, 1.05 * max(np.histogram(values, bins, density=True)[0].max() for values in parts))


def draw_similarities(axes: Axes, found: Similarities, scale: HistogramScale, threshold: float | None) -> None:
    """The three histograms; a line at the cosine from which on two images are best called one class, where that is given."""
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.0)
    for line in LINES:
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
