"""What is measured after each epoch: retrieval among the validation images, which belong to training classes. Test images are not read.

Shapes: N validation images, C their distinct class names, d embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assets.metrics.retrieval import mean_average_precision, recall_at_k
from assets.pictures.split import Split
from assets.pictures.table import read_rows


@dataclass(frozen=True)
class ValidationSet:
    pictures: Split
    labels: np.ndarray  # [N]
    names: list[str]  # [C], sorted
    relevant: np.ndarray  # bool [C, N]: the image's class has that name


def read_validation_set(table: Path) -> ValidationSet:
    rows = read_rows(table, "validation")
    class_names = np.array(rows["class_name"].to_pylist(), dtype=object)
    names = sorted(set(class_names))
    return ValidationSet(
        pictures=Split(table, "validation"),
        labels=np.array(rows["label"].to_pylist(), dtype=object),
        names=names,
        relevant=np.array([class_names == name for name in names], dtype=bool).reshape(len(names), len(class_names)),
    )


def image_to_image(images: np.ndarray, labels: np.ndarray) -> float | None:
    """mAP (fraction) with every validation image [N, d] as a query among the others; None where no class has two of them."""
    own = np.eye(len(labels), dtype=bool)
    same = (labels[:, None] == labels[None, :]) & ~own
    return mean_average_precision(images, images, same, exclude=own) if same.any() else None


def text_to_image(texts: np.ndarray, images: np.ndarray, relevant: np.ndarray) -> float | None:
    """Recall@5 (fraction) of texts [C, d] among validation images [N, d]; None where there are none."""
    return recall_at_k(texts, images, relevant, k=5) if relevant.any() else None
