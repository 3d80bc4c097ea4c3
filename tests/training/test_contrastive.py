"""Contrastive losses against plain loops."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from assets.training.contrastive import (
    global_info_nce_loss,
    global_sigmoid_loss,
    image_to_texts_loss,
    info_nce_loss,
    sigmoid_loss,
    texts_to_images_loss,
)


def pairs(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(count, 8, generator=generator), dim=1) for _ in range(2)]


def related_example():
    related = torch.eye(4, dtype=torch.bool)
    related[0, 2] = related[2, 0] = related[3, 1] = True
    return related


def test_info_nce_equals_the_loop():
    images, texts = pairs(4)
    related, scale = related_example(), 14.0
    total = 0.0
    for i in range(4):
        row = [math.exp(scale * float(images[i] @ texts[j])) for j in range(4) if j == i or not related[i, j]]
        column = [math.exp(scale * float(images[j] @ texts[i])) for j in range(4) if j == i or not related[j, i]]
        own = math.exp(scale * float(images[i] @ texts[i]))
        total -= (math.log(own / sum(row)) + math.log(own / sum(column))) / 2
    assert float(info_nce_loss(images, texts, torch.tensor(scale), related)) == pytest.approx(total / 4, rel=1e-5)


def test_an_image_and_all_texts_equal_the_loop():
    """Several own texts weigh the same, texts of the class are no negatives, and all others are, whatever batch they come from."""
    images, texts = pairs(3, seed=5)[0].double(), pairs(7, seed=6)[0].double()
    own, of_class = torch.zeros(3, 7, dtype=torch.bool), torch.zeros(3, 7, dtype=torch.bool)
    own[0, [0, 4]] = own[1, 1] = own[2, [2, 3, 6]] = True
    of_class[0, [0, 4, 5]] = of_class[2, [2, 3, 6, 0]] = True
    scale, total = 9.0, 0.0
    for i in range(3):
        exponentials = [math.exp(scale * float(images[i] @ text)) for text in texts]
        bottom = sum(value for j, value in enumerate(exponentials) if own[i, j] or not of_class[i, j])
        mine = own[i].nonzero().flatten().tolist()
        total -= sum(math.log(exponentials[k] / bottom) for k in mine) / len(mine)
    assert float(image_to_texts_loss(images, texts, torch.tensor(scale), own, of_class)) == pytest.approx(total / 3, rel=1e-12)


def test_both_halves_are_info_nce_where_every_image_has_one_text():
    images, texts = pairs(4, seed=7)
    related, scale, own = related_example(), torch.tensor(14.0), torch.eye(4, dtype=torch.bool)
    both = image_to_texts_loss(images, texts, scale, own, related) + texts_to_images_loss(images, texts, scale, related)
    torch.testing.assert_close(both / 2, info_nce_loss(images, texts, scale, related))


def test_a_batch_of_one_class_has_nothing_to_learn():
    images, texts = pairs(4)
    everything = torch.ones(4, 4, dtype=torch.bool)
    assert float(info_nce_loss(images, texts, torch.tensor(10.0), everything)) == 0.0


def test_sigmoid_equals_the_loop():
    images, texts = pairs(4, seed=3)
    related, scale, bias = related_example(), 10.0, -5.0
    total = 0.0
    for i in range(4):
        for j in range(4):
            if i == j or not related[i, j]:
                logit = scale * float(images[i] @ texts[j]) + bias
                total += math.log1p(math.exp(-logit if i == j else logit))
    loss = sigmoid_loss(images, texts, torch.tensor(scale), torch.tensor(bias), related)
    assert float(loss) == pytest.approx(total / 4, rel=1e-5)


@pytest.mark.parametrize("loss", [info_nce_loss, sigmoid_loss])
def test_autocast_does_not_reach_the_losses(loss):
    images, texts = pairs(4, seed=1)
    scales = [torch.tensor(14.0), torch.tensor(-5.0)][: 1 if loss is info_nce_loss else 2]
    expected = loss(images, texts, *scales, related_example())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(images, texts, *scales, related_example()), expected)
    assert loss(images.bfloat16(), texts.bfloat16(), *scales, related_example()).dtype == torch.float32


@pytest.mark.parametrize("loss", [info_nce_loss, sigmoid_loss])
def test_gradients_in_double_pass_gradcheck(loss):
    images, texts = (side.double().requires_grad_() for side in pairs(4, seed=2))
    scales = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (3.0, -1.0)]
    scales = scales[: 1 if loss is info_nce_loss else 2]
    assert torch.autograd.gradcheck(lambda *inputs: loss(*inputs, related_example()), (images, texts, *scales))


def test_of_one_process_the_global_losses_are_the_plain_ones():
    images, texts = pairs(4, seed=4)
    related, scale, bias = related_example(), torch.tensor(10.0), torch.tensor(-5.0)
    torch.testing.assert_close(global_info_nce_loss(images, texts, scale, related, related.T), info_nce_loss(images, texts, scale, related))
    assert torch.equal(global_sigmoid_loss(images, texts, scale, bias, related), sigmoid_loss(images, texts, scale, bias, related))
