"""What is measured after each epoch: retrieval among the validation images, which belong to training classes. Test data never gets here.

Shapes: N validation images, C their distinct class names, d embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assets.clip.encoding import encode_images
from assets.clip.model import Clip, Preprocess
from assets.metrics.retrieval import mean_average_precision, recall_at_k
from assets.pictures.table import read_images, read_rows


@dataclass(frozen=True)
class ValidationSet:
    path: Path
    labels: np.ndarray  # [N]
    names: list[str]  # [C], sorted
    relevant: np.ndarray  # bool [C, N]: the image's class has that name

    def encode(self, model: Clip, preprocess: Preprocess, *, batch_size: int, device: str, precision: str) -> np.ndarray:
        """float32 [N, d], unit norm."""
        images = read_images(self.path, "validation")
        total = len(self.labels)
        return encode_images(model, preprocess, images, total=total, batch_size=batch_size, device=device, precision=precision)


def read_validation_set(path: Path) -> ValidationSet:
    rows = read_rows(path, "validation")
    class_names = np.array(rows["class_name"].to_pylist(), dtype=object)
    names = sorted(set(class_names))
    return ValidationSet(
        path=path,
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
