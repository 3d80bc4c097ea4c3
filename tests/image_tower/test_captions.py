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


def test_with_several_processes_candidates_are_everyones():
    sets = CaptionSets.from_lists([[0, 2], [1, 3], [4], [2]], np.array([7, 7, 1, 2, 3]))
    everyone = np.array([2, 0, 1, 3])
    candidates, positives, ignored = sets.of_batch(everyone)
    for mine in (slice(0, 2), slice(2, 4)):
        own_candidates, own_positives, own_ignored = sets.of_batch(everyone[mine], everyone)
        assert np.array_equal(own_candidates, candidates)
        assert np.array_equal(own_positives, positives[mine])
        assert np.array_equal(own_ignored, ignored[mine])


def test_an_image_without_captions_has_no_positives():
    sets = CaptionSets.from_lists([[], [0]], np.array([5]))
    candidates, positives, ignored = sets.of_batch(np.array([0, 1]))
    assert candidates.tolist() == [0]
    assert positives.tolist() == [[False], [True]]
    assert not ignored.any()
    candidates, positives, _ = sets.of_batch(np.array([0]))
    assert candidates.shape == (0,)
    assert positives.shape == (1, 0)
