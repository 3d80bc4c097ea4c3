import numpy as np
import torch

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


def test_captions_of_no_picture_of_the_batch_are_negatives_too():
    """But those of an own caption's cluster."""
    sets = CaptionSets.from_lists([[0, 2], [1, 3], [4]], np.array([7, 7, 1, 2, 3]))
    candidates, positives, ignored = sets.of_batch(np.array([0]), others=np.array([4, 1, 0]))
    assert candidates.tolist() == [0, 1, 2, 4]
    assert positives.tolist() == [[True, False, True, False]]
    assert ignored.tolist() == [[False, True, False, False]]


def test_so_many_captions_are_drawn_and_none_twice():
    sets = CaptionSets.from_lists([], np.arange(6))
    assert sorted(sets.drawn(10, torch.Generator().manual_seed(0)).tolist()) == [0, 1, 2, 3, 4, 5]
    some = sets.drawn(4, torch.Generator().manual_seed(1)).tolist()
    assert len(set(some)) == 4 and set(some) <= set(range(6))
