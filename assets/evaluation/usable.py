"""An encoder whose embeddings all have a direction: a model that answers NaN, infinity or zeros ends the evaluation with a message."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from assets.errors import UserError
from assets.metrics.norms import unit_norm

if TYPE_CHECKING:
    from assets.clip.encoder import Encoder
    from assets.evaluation.benchmarks.pictures import Pictures
    from assets.pictures.split import Split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsableEncoder:
    """Raises UserError, which names the first input without a usable embedding."""

    encoder: Encoder

    def images(self, pictures: Pictures) -> np.ndarray:
        """float32 [N, d], unit norm."""
        return self._checked(self.encoder.images(pictures), pictures.names)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [T, d], unit norm."""
        return self._checked(self.encoder.texts(texts), texts)

    def images_or_blank(self, split: Split, ids: Sequence[str]) -> np.ndarray:
        """float32 [N, d], unit norm or zero: the model may see nothing in some pictures, such as blank ones. They count as misses."""
        embeddings = self.encoder.images(split)
        blank = np.flatnonzero(~embeddings.any(axis=1))
        if 0 < len(blank) < len(ids):
            logger.warning(
                "%s gives %d of %d test images a zero embedding, first %r: they count as misses",
                *(self.encoder.directory, len(blank), len(ids), ids[blank[0]]),
            )
            self._checked(np.delete(embeddings, blank, axis=0), np.delete(np.array(ids, dtype=object), blank).tolist())
        else:
            self._checked(embeddings, ids)
        return embeddings

    def _checked(self, embeddings: np.ndarray, names: Sequence[str]) -> np.ndarray:
        wrong = np.flatnonzero(~unit_norm(embeddings))
        if len(wrong):
            raise UserError(
                f"{self.encoder.directory} gives no usable embedding (NaN, infinite or zero) for {len(wrong)} of {len(names)} inputs,"
                f" first {names[wrong[0]]!r}. With evaluation.precision bf16 or fp16 try fp32; else the model is broken:"
                " train it again with a lower learning rate."
            )
        return embeddings
