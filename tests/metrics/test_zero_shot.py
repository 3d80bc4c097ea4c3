"""Prompt ensembles by hand on the plane, and the choice of a class."""

import numpy as np
import pytest
import torch

from assets.metrics.zero_shot import prompt_ensemble, zero_shot_predictions


def test_normalise_mean_normalise():
    # Directions 0° and 90° of lengths 3 and 1/2 average to 45°; a plain mean would lean to the longer one.
    embeddings = np.array([[[3.0, 0.0], [0.0, 0.5]], [[0.0, -2.0], [0.0, -4.0]]])
    np.testing.assert_allclose(prompt_ensemble(embeddings), [[np.sqrt(0.5), np.sqrt(0.5)], [0.0, -1.0]], atol=1e-12)
    np.testing.assert_allclose(prompt_ensemble(torch.from_numpy(embeddings).float()), prompt_ensemble(embeddings), atol=1e-7)


def test_an_ensemble_without_direction_is_an_error():
    with pytest.raises(ValueError, match="class 1 has no direction"):
        prompt_ensemble(np.array([[[1.0, 0.0]], [[0.0, 0.0]]]))
    with pytest.raises(ValueError, match="class 0 has no direction"):
        prompt_ensemble(np.array([[[0.6, 0.8], [-0.6, -0.8]]]))
    with pytest.raises(ValueError, match=r"\[classes, prompts, dimensions\], given shape \[2, 0, 3\]"):
        prompt_ensemble(np.zeros((2, 0, 3)))


def test_the_most_similar_class_and_the_lowest_index_among_equals():
    classes = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    images = np.array([[1.0, 0.1], [0.1, 1.0], [1.0, 1.0]])
    assert zero_shot_predictions(images, classes).tolist() == [1, 0, 0]


def test_equals_a_plain_argmax():
    generator = np.random.default_rng(0)
    images, classes = generator.standard_normal((600, 8)), generator.standard_normal((11, 8))
    expected = [max(range(11), key=lambda c, image=image: float(image @ classes[c])) for image in images]
    assert zero_shot_predictions(images, classes).tolist() == expected


def test_no_class_is_an_error():
    with pytest.raises(ValueError, match="no class to choose from"):
        zero_shot_predictions(np.ones((1, 2)), np.zeros((0, 2)))
