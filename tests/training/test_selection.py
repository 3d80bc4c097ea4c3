"""Which epoch is kept, in words."""

import pytest

from assets.training.selection import kept


def rows(*scores):
    return [{"epoch": 2 * number, "validation_search": score} for number, score in enumerate(scores)]


def chosen(*scores, cannot_choose=None, start_is_candidate=True):
    return kept(rows(*scores), "search", start_is_candidate=start_is_candidate, cannot_choose=cannot_choose, validated_on="some")


@pytest.mark.parametrize(
    ("scores", "epoch", "last", "words"),
    [
        ((0.1, 0.4, 0.3), 2, False, "the best by validation search: 0.400, at the start 0.100"),
        ((0.1, 0.3, 0.4), 4, True, "the best by"),
        ((0.1, 0.4, 0.4), 4, True, "the best by"),  # a tie goes to more training
        ((0.5, 0.4, 0.3), 0, False, "the start itself: nothing that training made has as high a validation search as its 0.500"),
        ((None, None, None), 4, False, "the last: validation has nothing to measure"),
    ],
)
def test_the_kept_epoch_and_why(scores, epoch, last, words):
    found = chosen(*scores)
    assert (found.epoch, found.best_is_last, found.measures) == (epoch, last, {"validation_search": scores[epoch // 2]})
    assert words in str(found)


def test_without_the_start_the_best_of_what_training_made():
    """The way back begins at the start and needs another end."""
    assert chosen(0.5, 0.4, 0.3, start_is_candidate=False).epoch == 2


def test_too_small_a_validation_says_so():
    """It was logged as «the best by validation»."""
    found = chosen(0.1, 1.0, 0.2, cannot_choose="6 validation pictures are too few to choose by")
    assert (found.epoch, found.chosen, found.best_is_last) == (4, False, False)
    assert str(found) == "epoch 4, the last: 6 validation pictures are too few to choose by"
