"""Which texts describe a training image, as numbers: a vocabulary of distinct texts and, for every image, the ids of its own.

Shapes: N images, K the most texts of one image, C classes, B pairs, T texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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

    def candidates(self, rows: np.ndarray, limit: int, generator: torch.Generator) -> np.ndarray:
        """Text ids int64 [T], sorted: the whole vocabulary, or, of more than `limit`, the texts of the rows [B] and random ones."""
        if len(self.vocabulary) <= limit:
            return np.arange(len(self.vocabulary))
        drawn = torch.randperm(len(self.vocabulary), generator=generator)[:limit].numpy()
        return np.setdiff1d(np.union1d(drawn, self.ids[rows]), [NO_TEXT])

    def own(self, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """bool [B, T]: text j of the candidates is one of image i's."""
        return _among(self.ids[rows], candidates)

    def of_class(self, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """bool [B, T]: text j of the candidates is one of an image of image i's class."""
        return _among(self._class_ids[self.labels[rows]], candidates)

    @cached_property
    def _class_ids(self) -> np.ndarray:
        """int64 [C, …]: the ids of each class's texts, padded with NO_TEXT."""
        image, column = np.nonzero(self.ids != NO_TEXT)
        pairs = np.unique(np.stack([self.labels[image], self.ids[image, column]]), axis=1)
        return _padded(np.split(pairs[1], np.flatnonzero(np.diff(pairs[0])) + 1))


def _among(ids: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """bool [B, T]: which of the sorted candidates [T] are in each row of ids [B, …]."""
    place = np.searchsorted(candidates, ids).clip(max=len(candidates) - 1)
    row, column = np.nonzero(candidates[place] == ids)
    found = np.zeros((len(ids), len(candidates)), bool)
    found[row, place[row, column]] = True
    return found


def _padded(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    ids = np.full((len(rows), max(map(len, rows))), NO_TEXT, np.int64)
    for row, own in enumerate(rows):
        ids[row, : len(own)] = own
    return ids


def image_texts(rows: pa.Table, *, with_class_names: bool) -> ImageTexts:
    """Texts of labelled images: their captions, and their class's name if asked for or if an image has no caption."""
    texts = [
        list(dict.fromkeys([*captions, *([name] if with_class_names or not captions else [])]))
        for captions, name in zip(rows["captions"].to_pylist(), rows["class_name"].to_pylist(), strict=True)
    ]
    vocabulary = sorted({text for own in texts for text in own})
    number = {text: row for row, text in enumerate(vocabulary)}
    ids = _padded([[number[text] for text in own] for own in texts])
    _, labels = np.unique(np.array(rows["label"].to_pylist()), return_inverse=True)
    return ImageTexts(vocabulary, ids, np.array([len(own) for own in texts]), labels)
