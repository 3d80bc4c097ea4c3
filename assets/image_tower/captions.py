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

    def of_batch(self, rows: np.ndarray, everyone: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(candidates int64 [K] sorted, positives bool [B, K], ignored bool [B, K]) for the images `rows`.

        Candidates are the captions of `everyone`, the images of the batch on all ranks, `rows` among them; None: `rows` is the batch.
        Ignored: a caption of another image from a cluster that one of the image's own captions is in.
        """
        candidates = np.unique(np.concatenate([self.captions[row] for row in (rows if everyone is None else everyone)]))
        own = [self.captions[row] for row in rows]
        image = np.repeat(np.arange(len(rows)), [len(captions) for captions in own])
        column = np.searchsorted(candidates, np.concatenate(own))
        positives = np.zeros((len(rows), len(candidates)), bool)
        positives[image, column] = True
        clusters, cluster = np.unique(self.clusters[candidates], return_inverse=True)
        has_cluster = np.zeros((len(rows), len(clusters)), bool)
        has_cluster[image, cluster[column]] = True
        return candidates, positives, has_cluster[:, cluster] & ~positives
