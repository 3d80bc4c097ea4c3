"""Which texts describe a training image, as numbers: a vocabulary of distinct texts and, for every image, the ids of its own.

Shapes: N images, K the most texts of one image, B pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

NO_TEXT = -1  # pads the rows of `ids`


@dataclass(frozen=True)
class ImageTexts:
    vocabulary: list[str]  # distinct, sorted
    ids: np.ndarray  # int64 [N, K], padded with NO_TEXT
    counts: np.ndarray  # int64 [N], at least 1
    labels: np.ndarray  # int64 [N], the image's class

    def draw(self, rows: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """One text id, chosen at random, for each of the rows [B]."""
        shares = torch.rand(len(rows), generator=generator, dtype=torch.float64).numpy()
        return self.ids[rows, (shares * self.counts[rows]).astype(np.int64)]

    def related(self, rows: np.ndarray, others: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """bool [B, T]: image i of rows [B] shares text j, or the class of the image others[j] that text j of [T] was drawn for.

        The losses take no such pair as a negative.
        """
        shares_text = np.zeros((len(rows), len(texts)), bool)
        for column in self.ids[rows].T:  # one at a time: a batch of 32k pairs has no room for all K at once
            shares_text |= column[:, None] == texts
        shares_class = self.labels[rows][:, None] == self.labels[others][None, :]
        return shares_text | shares_class


def image_texts(rows: pa.Table, *, with_class_names: bool) -> ImageTexts:
    """Texts of labelled images: their captions, and their class's name if asked for or if an image has no caption."""
    texts = [
        list(dict.fromkeys([*captions, *([name] if with_class_names or not captions else [])]))
        for captions, name in zip(rows["captions"].to_pylist(), rows["class_name"].to_pylist(), strict=True)
    ]
    vocabulary = sorted({text for own in texts for text in own})
    number = {text: row for row, text in enumerate(vocabulary)}
    ids = np.full((len(texts), max(map(len, texts))), NO_TEXT, np.int64)
    for row, own in enumerate(texts):
        ids[row, : len(own)] = [number[text] for text in own]
    _, labels = np.unique(np.array(rows["label"].to_pylist()), return_inverse=True)
    return ImageTexts(vocabulary, ids, np.array([len(own) for own in texts]), labels)
