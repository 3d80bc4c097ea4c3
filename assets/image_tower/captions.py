"""The captions of a batch as candidates: which are whose, and which are nobody's negatives.

Shapes: B images of a batch, K distinct captions of that batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CaptionSets:
    """For every training image its caption numbers; for every caption its cluster."""

    captions: list[np.ndarray]  # of each image, int64
    clusters: np.ndarray  # int64, of each caption

    @classmethod
    def from_lists(cls, captions: list[list[int]], clusters: np.ndarray) -> CaptionSets:
        return cls([np.array(own, np.int64) for own in captions], clusters)

    def of_batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(candidates int64 [K] sorted, positives bool [B, K], ignored bool [B, K]).

        Ignored: a caption of another image from a cluster that one of the image's own captions is in.
        """
        own = [self.captions[row] for row in rows]
        image = np.repeat(np.arange(len(rows)), [len(captions) for captions in own])
        candidates, column = np.unique(np.concatenate(own), return_inverse=True)
        positives = np.zeros((len(rows), len(candidates)), bool)
        positives[image, column] = True
        _, cluster = np.unique(self.clusters[candidates], return_inverse=True)
        has_cluster = np.zeros((len(rows), cluster.max() + 1), bool)
        has_cluster[image, cluster[column]] = True
        return candidates, positives, has_cluster[:, cluster] & ~positives
