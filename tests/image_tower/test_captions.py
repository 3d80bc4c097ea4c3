import numpy as np

from assets.image_tower.captions import CaptionSets


def test_candidates_positives_and_ignored_of_a_batch():
    # captions 0 and 1 are near-duplicates (cluster 7); 2, 3, 4 stand alone
    sets = CaptionSets.from_lists([[0, 2], [1, 3], [4]], np.array([7, 7, 1, 2, 3]))
    candidates, positives, ignored = sets.of_batch(np.array([2, 0, 1]))
    assert candidates.tolist() == [0, 1, 2, 3, 4]
    assert positives.tolist() == [
        [False, False, False, False, True],
        [True, False, True, False, False],
        [False, True, False, True, False],
    ]
    # caption 1 is no negative of the image that has caption 0, and the other way round
    assert ignored.tolist() == [
        [False, False, False, False, False],
        [False, True, False, False, False],
        [True, False, False, False, False],
    ]


def test_only_the_batch_counts():
    sets = CaptionSets.from_lists([[5], [3]], np.arange(6))
    candidates, positives, ignored = sets.of_batch(np.array([1]))
    assert candidates.tolist() == [3]
    assert positives.tolist() == [[True]]
    assert ignored.tolist() == [[False]]
