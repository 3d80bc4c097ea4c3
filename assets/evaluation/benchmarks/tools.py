"""What a protocol measures with: an encoder and the settings of k-NN. Where they come from is the stage's concern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from assets.evaluation.benchmarks.pictures import Pictures


class Encodes(Protocol):
    """A model under test, such as assets.clip.encoder.Encoder."""

    def images(self, pictures: Pictures) -> np.ndarray:
        """[N, d], unit norm."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[T, d], unit norm."""


class Tools(NamedTuple):
    """imagenet_classes() → [1000, d], one prompt ensemble per class in the order of the wnids; imagenet_train() → embeddings [N, d] and
    class numbers int64 [N] of ImageNet's training images, None where they are not there. Both are computed once, at the first call.
    """

    encoder: Encodes
    knn_k: int
    knn_temperature: float
    imagenet_classes: Callable[[], np.ndarray]
    imagenet_train: Callable[[], tuple[np.ndarray, np.ndarray]] | None
