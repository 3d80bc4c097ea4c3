"""FGVC-Aircraft (Maji et al., arXiv 1306.5151): k-NN classification of aircraft variants."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Pictures, listed, required, unpacked
from assets.evaluation.benchmarks.recall import percent
from assets.evaluation.benchmarks.tools import Tools
from assets.metrics.knn import knn_predictions


class Split(NamedTuple):
    pictures: Pictures  # the test images
    variants: np.ndarray  # str [N]
    train: Pictures
    train_variants: np.ndarray


def read_fgvc_aircraft(root: Path) -> Split:
    """`data/images_variant_{train,test}.txt` (lines `<image> <variant>`) and `data/images/<image>.jpg`."""
    data = unpacked(root, "fgvc-aircraft-2013b", "data") / "data"
    train, test = (_read_list(data, part) for part in ("train", "test"))
    return Split(*test, *train)


def measure_fgvc_aircraft(data: Split, tools: Tools) -> dict[str, float]:
    """Accuracy (top-1) over the 100 variants, percent: each test image by the vote of its nearest training images.

    As in the public code of arXiv 2409.01936: the training part alone is the gallery (not `trainval`), k 21, weights exp(cosine / 0.1);
    the 20 rows of copyright text below each picture are left in, as torchvision and the published numbers of CLIP do.
    """
    gallery = tools.encoder.images(data.train)
    predicted = knn_predictions(
        tools.encoder.images(data.pictures), gallery, data.train_variants, k=tools.knn_k, temperature=tools.knn_temperature
    )
    return {"knn": percent(predicted == data.variants)}


def _read_list(data: Path, part: str) -> tuple[Pictures, np.ndarray]:
    path = required(data / f"images_variant_{part}.txt")
    rows = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or any(len(row) != 2 for row in rows):
        raise UserError(f"{path} must have an image and its variant on each line.")
    return listed(data / "images", [f"{image}.jpg" for image, _ in rows]), np.array([variant.strip() for _, variant in rows])
