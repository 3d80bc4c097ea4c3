"""How long a training is, on few pictures and on many."""

import pytest

from assets.training.length import length
from tests.training.test_loop import SETTINGS

DEMO = SETTINGS.model_copy(update={"steps": 300, "epochs": 3, "validations": 12, "batch_size": 128, "max_batch_share": 0.25})


@pytest.mark.parametrize(
    ("pictures", "batch", "steps", "epochs"),
    [
        (6400, 128, 300, 6),
        (1300, 128, 300, 30),  # where six epochs were sixty steps, and a better model was to be had for five times as many
        (90, 16, 300, 60),
        (5, 8, 300, 300),  # one batch of all
        (1_000_000, 128, 23436, 3),  # many pictures: the paper's three epochs and no more
    ],
)
def test_few_pictures_get_as_many_steps_as_many_and_smaller_batches(pictures, batch, steps, epochs):
    found = length(DEMO, pictures)
    assert (found.batch_size, found.steps, found.epochs) == (batch, steps, epochs)
    assert found.epochs_per_round == -(-epochs // 12)


def test_a_step_of_several_batches_counts_once():
    found = length(DEMO.model_copy(update={"accumulate": 4}), 1300)  # ten batches: 4, 4, 2
    assert (found.steps, found.epochs) == (300, 100)


def test_smaller_batches_are_a_multiple_of_eight_which_processes_can_share():
    assert {length(DEMO, pictures).batch_size % 8 for pictures in range(1, 600)} == {0}
    assert length(DEMO.model_copy(update={"batch_size": 4}), 20).batch_size == 4  # what is asked for is never exceeded
