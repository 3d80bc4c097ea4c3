"""Random numbers by place: the same place gives the same, another place others."""

import torch

from assets.training.randomness import generator_for


def drawn(*place: int) -> list[int]:
    return torch.randint(2**31, (8,), generator=generator_for(*place)).tolist()


def test_a_step_can_be_drawn_again_alone():
    assert drawn(0, 3, 5) == drawn(0, 3, 5)


def test_a_place_is_not_the_same_one_with_a_zero_after_it():
    """The order of an epoch and the views of its first batch came from one generator."""
    places = [(0,), (0, 0), (1, 2), (1, 2, 0), (1, 2, 0, 0)]
    assert len({tuple(drawn(*place)) for place in places}) == len(places)


def test_places_of_one_length_are_independent():
    places = [(seed, epoch, step) for seed in range(3) for epoch in range(3) for step in range(3)]
    assert len({tuple(drawn(*place)) for place in places}) == len(places)
