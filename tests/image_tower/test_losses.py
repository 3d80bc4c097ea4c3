"""The losses against plain float64 loops over the paper's formulas."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from assets.image_tower.losses import arc_margin_loss, multi_caption_arc_margin_loss

SCALE, MARGIN = 30.0, 0.1


def arc_margin_reference(embeddings, centers, labels):
    total = 0.0
    for z, label in zip(embeddings.double(), labels.tolist(), strict=True):
        terms = []
        for number, center in enumerate(centers.double()):
            angle = math.acos(max(-1 + 1e-7, min(1 - 1e-7, float(z @ center / center.norm()))))
            terms.append(math.exp(SCALE * math.cos(angle + (MARGIN if number == label else 0.0))))
        total -= math.log(terms[label] / sum(terms))
    return total / len(embeddings)


def multi_caption_reference(embeddings, captions, positives, ignored=None):
    total = 0.0
    for row, z in enumerate(embeddings.double()):
        angles = [math.acos(max(-1 + 1e-7, min(1 - 1e-7, float(z @ caption)))) for caption in captions.double()]
        own = [k for k in range(len(captions)) if positives[row, k]]
        others = [k for k in range(len(captions)) if not positives[row, k] and (ignored is None or not ignored[row, k])]
        bottom = sum(math.exp(SCALE * math.cos(angles[p] + MARGIN)) for p in own) + sum(
            math.exp(SCALE * math.cos(angles[j])) for j in others
        )
        total -= sum(math.log(math.exp(SCALE * math.cos(angles[k] + MARGIN)) / bottom) for k in own) / len(own)
    return total / len(embeddings)


def unit(rows, width, seed):
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1).float()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [1, 2, 17])
def test_arc_margin_equals_the_loop(seed, classes):
    embeddings, centers = unit(9, 8, seed), 3 * unit(classes, 8, seed + 100)
    embeddings[1] = embeddings[0]  # a duplicate
    labels = torch.randint(classes, (9,), generator=torch.Generator().manual_seed(seed))
    loss = arc_margin_loss(embeddings, centers, labels, SCALE, MARGIN)
    assert float(loss) == pytest.approx(arc_margin_reference(embeddings, centers, labels), rel=1e-5, abs=1e-5)


def test_arc_margin_by_hand():
    # one class at 0 rad, one at 90 degrees; the image at 0 rad of the first: s·cos(0 + m) against s·cos(90°)
    embeddings, centers = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    # cos is clamped to 1 - 1e-7, an angle of acos(1 - 1e-7)
    angle = math.acos(1 - 1e-7)
    expected = math.log1p(math.exp(SCALE * (0.0 - math.cos(angle + MARGIN))))
    assert float(arc_margin_loss(embeddings, centers, torch.tensor([0]), SCALE, MARGIN)) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("masked", [False, True])
def test_multi_caption_equals_the_loop(seed, masked):
    generator = torch.Generator().manual_seed(seed)
    embeddings, captions = unit(6, 8, seed), unit(11, 8, seed + 50)
    captions[3] = captions[4]
    positives = torch.rand(6, 11, generator=generator) < 0.3
    positives[:, 0] |= ~positives.any(dim=1)
    positives[5] = True  # every candidate is its own
    ignored = (torch.rand(6, 11, generator=generator) < 0.3) & ~positives if masked else None
    loss = multi_caption_arc_margin_loss(embeddings, captions, positives, SCALE, MARGIN, ignored)
    assert float(loss) == pytest.approx(multi_caption_reference(embeddings, captions, positives, ignored), rel=1e-5, abs=1e-5)


def test_one_caption_an_image_is_arc_margin_on_those_captions():
    embeddings, captions = unit(5, 8, 1), unit(5, 8, 2)
    positives = torch.eye(5, dtype=torch.bool)
    multi = multi_caption_arc_margin_loss(embeddings, captions, positives, SCALE, MARGIN)
    single = arc_margin_loss(embeddings, captions, torch.arange(5), SCALE, MARGIN)
    torch.testing.assert_close(multi, single)


def test_gradients_equal_the_formula_in_float64():
    embeddings, centers = unit(4, 6, 3), unit(7, 6, 4)
    labels = torch.tensor([0, 3, 3, 6])
    fast = embeddings.clone().requires_grad_(True)
    arc_margin_loss(fast, centers, labels, SCALE, MARGIN).backward()
    slow = embeddings.double().requires_grad_(True)
    cosines = slow @ normalize(centers.double(), dim=1).T
    logits = SCALE * torch.cos(torch.acos(cosines) + MARGIN * torch.nn.functional.one_hot(labels, 7))
    (-logits.log_softmax(dim=1)[torch.arange(4), labels]).mean().backward()
    torch.testing.assert_close(fast.grad, slow.grad.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_the_poles(sign):
    embeddings = torch.tensor([[1.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[sign, 0.0], [0.0, 1.0]], requires_grad=True)
    arc = arc_margin_loss(embeddings, targets, torch.tensor([0]), SCALE, MARGIN)
    multi = multi_caption_arc_margin_loss(embeddings, targets, torch.tensor([[True, False]]), SCALE, MARGIN)
    (arc + multi).backward()
    assert torch.isfinite(arc + multi)
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(targets.grad).all()
