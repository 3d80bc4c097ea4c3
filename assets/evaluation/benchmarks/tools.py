"""What a protocol gets to measure with: encoders and the k-NN settings. Where they come from is the stage's concern."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from assets.evaluation.benchmarks.pictures import Pictures

EncodeImages = Callable[[Pictures], np.ndarray]  # N pictures → [N, d], unit norm
EncodeTexts = Callable[[Sequence[str]], np.ndarray]  # T texts → [T, d], unit norm


class Tools(NamedTuple):
    """One model under test.

    imagenet_classes() → [1000, d], a prompt ensemble a class in the order of the wnids; imagenet_train() → embeddings [N, d] and class
    numbers int64 [N] of ImageNet's training images, None where they are not there. Both are computed once, at the first call.
    """

    encode_images: EncodeImages
    encode_texts: EncodeTexts
    knn_k: int
    knn_temperature: float
    imagenet_classes: Callable[[], np.ndarray]
    imagenet_train: Callable[[], tuple[np.ndarray, np.ndarray]] | None
