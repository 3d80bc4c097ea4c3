"""Near-duplicates in one cluster, the same ones every time."""

import numpy as np

from assets.pseudo_captions.clusters import cluster_captions


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_clusters_bring_duplicates_together_and_are_repeatable():
    texts = np.concatenate([at(0, 90, 180), at(0.01, 90.01, 180.01)])
    clusters = cluster_captions(texts, 3, seed=0)
    assert clusters[:3].tolist() == clusters[3:].tolist()
    assert len(set(clusters.tolist())) == 3
    assert cluster_captions(texts, 3, seed=0).tolist() == clusters.tolist()


def test_more_clusters_than_captions_is_one_each():
    assert len(set(cluster_captions(at(0, 90), 10, seed=0).tolist())) == 2
