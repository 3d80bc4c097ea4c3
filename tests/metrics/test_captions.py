"""Caption recall by hand, against a plain loop and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_hit_rate

from assets.metrics.captions import caption_hits_at_k, caption_recall_at_k


def slow_recall(images, captions, owner, k):
    similarity = [[math.fsum(float(a) * float(b) for a, b in zip(x, t, strict=True)) for t in captions] for x in images]
    to_image = []
    for t in range(len(captions)):
        order = sorted(range(len(images)), key=lambda n: (-similarity[n][t], n))
        to_image.append(owner[t] in order[:k])
    to_text = []
    for n in range(len(images)):
        if n in owner:
            order = sorted(range(len(captions)), key=lambda t: (-similarity[n][t], t))
            to_text.append(any(owner[t] == n for t in order[:k]))
    return sum(to_image) / len(to_image), sum(to_text) / len(to_text)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [1, 2, 5, 100])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_equals_the_definition(seed, k, whole_numbers):
    generator = np.random.default_rng(seed)
    images, captions = generator.standard_normal((9, 3)), generator.standard_normal((20, 3))
    if whole_numbers:
        images, captions = np.sign(images.round()), np.sign(captions.round())
    owner = generator.integers(9, size=20)
    assert caption_recall_at_k(images, captions, owner, k) == pytest.approx(slow_recall(images, captions, owner.tolist(), k), abs=1e-12)


def test_any_of_an_images_captions_is_a_hit():
    # Image 0 points along x, image 1 along y. Its second caption is the one that image 0 finds; the first caption finds image 1.
    images = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    captions = np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.8]])
    owner = np.array([0, 0, 1])
    hits = caption_hits_at_k(images, captions, owner, 1)
    assert hits.text_to_image.tolist() == [0, 1, 1]
    # image 1 finds caption 0, which is image 0's; image 2 has no caption
    np.testing.assert_array_equal(hits.image_to_text, [1, 0, np.nan])
    assert caption_recall_at_k(images, captions, owner, 1) == pytest.approx((2 / 3, 1 / 2), abs=1e-12)
    assert caption_recall_at_k(torch.from_numpy(images), torch.from_numpy(captions), torch.from_numpy(owner), 99) == (1, 1)


def test_equals_torchmetrics():
    generator = np.random.default_rng(5)
    images, captions, owner = generator.standard_normal((12, 8)), generator.standard_normal((60, 8)), np.repeat(np.arange(12), 5)
    scores, own = torch.from_numpy(images @ captions.T), torch.from_numpy(np.arange(12)[:, None] == owner)
    for k in (1, 5, 10):
        to_text = np.mean([float(retrieval_hit_rate(*pair, top_k=k)) for pair in zip(scores, own, strict=True)])
        to_image = np.mean([float(retrieval_hit_rate(*pair, top_k=k)) for pair in zip(scores.T, own.T, strict=True)])
        assert caption_recall_at_k(images, captions, owner, k) == pytest.approx((to_image, to_text), abs=1e-12)


@pytest.mark.parametrize("owner", [[0, 2], [-1, 0], [0], [0.0, 1.0], []])
def test_wrong_owners_are_named(owner):
    with pytest.raises(ValueError, match="image_of_caption must be"):
        caption_recall_at_k(np.ones((2, 3)), np.ones((2, 3)), np.array(owner), 1)
