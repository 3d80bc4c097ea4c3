"""Embeddings without a direction: one that slips through would be counted as right or wrong by chance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Pictures
from assets.evaluation.usable import UsableEncoder


@dataclass
class Answers:
    """An encoder that answers these vectors, whatever it is asked."""

    vectors: np.ndarray
    directory: Path = Path("data/models/x")

    def images(self, pictures):
        return self.vectors

    def texts(self, texts):
        return self.vectors


def usable(*rows):
    return UsableEncoder(Answers(np.array(rows, np.float32)))


def test_unit_vectors_pass():
    found = usable([1, 0], [0.6, 0.8])
    for embeddings in (found.texts(["a", "b"]), found.images(Pictures(Path(), ["a", "b"])), found.images_or_blank(None, ["a", "b"])):
        np.testing.assert_allclose(embeddings, [[1, 0], [0.6, 0.8]])


@pytest.mark.parametrize("wrong", [[0, 0], [np.nan, 1], [np.inf, 0], [2, 0]])
def test_the_first_input_without_a_direction_is_named(wrong):
    found = usable([1, 0], wrong, wrong)
    message = r"data/models/x gives no usable embedding .* for 2 of 3 inputs, first 'b'"
    with pytest.raises(UserError, match=message):
        found.texts(["a", "b", "c"])
    with pytest.raises(UserError, match=message):
        found.images(Pictures(Path(), ["a", "b", "c"]))


def test_blank_test_images_count_as_misses_but_nothing_else_does(caplog):
    embeddings = usable([1, 0], [0, 0]).images_or_blank(None, ["a", "b"])
    assert embeddings.tolist() == [[1, 0], [0, 0]]
    assert "gives 1 of 2 test images a zero embedding, first 'b': they count as misses" in caplog.text
    with pytest.raises(UserError, match="1 of 2 inputs, first 'c'"):  # beside the blank one
        usable([1, 0], [0, 0], [np.nan, 0]).images_or_blank(None, ["a", "b", "c"])
    with pytest.raises(UserError, match="2 of 2 inputs"):
        usable([0, 0], [0, 0]).images_or_blank(None, ["a", "b"])
