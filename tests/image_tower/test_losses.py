"""The losses and their gradients against plain float64 loops over the paper's formulas, and the memory they take."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize, one_hot
from torch.profiler import ProfilerActivity, profile

from assets.image_tower import losses
from assets.image_tower.losses import arc_margin_loss, multi_caption_arc_margin_loss, sample_classes

SCALE, MARGIN = 30.0, 0.1
BOUND = 1 - 1e-7


def logit(embedding, target, margin):
    return SCALE * torch.cos(torch.acos((embedding @ target / target.norm()).clamp(-BOUND, BOUND)) + margin)


def arc_margin_reference(embeddings, centers, labels):
    """In double, an image and a class at a time; differentiable."""
    total = 0.0
    for z, label in zip(embeddings.double(), labels.tolist(), strict=True):
        terms = [logit(z, center, MARGIN if number == label else 0.0).exp() for number, center in enumerate(centers.double())]
        total = total - torch.log(terms[label] / sum(terms))
    return total / len(embeddings)


def multi_caption_reference(embeddings, captions, positives, ignored=None):
    """In double, an image and a caption at a time; differentiable. The captions are unit norm but for fp32's rounding."""
    total = 0.0
    for row, z in enumerate(embeddings.double()):
        cosines = [(z @ caption).clamp(-BOUND, BOUND) for caption in captions.double()]
        own = [k for k in range(len(captions)) if positives[row, k]]
        others = [k for k in range(len(captions)) if not positives[row, k] and (ignored is None or not ignored[row, k])]
        with_margin = {k: torch.exp(SCALE * torch.cos(torch.acos(cosines[k]) + MARGIN)) for k in own}
        bottom = sum(with_margin.values()) + sum(torch.exp(SCALE * cosines[j]) for j in others)
        total = total - sum(torch.log(with_margin[k] / bottom) for k in own) / len(own)
    return total / len(embeddings)


def assert_same_with_gradients(loss, reference, *inputs):
    """Value and gradients of `loss(*inputs)` in fp32 within 1e-5 of the reference's in double."""
    fast = [tensor.clone().requires_grad_() for tensor in inputs]
    slow = [tensor.double().requires_grad_() for tensor in inputs]
    value, expected = loss(*fast), reference(*slow)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    value.backward()
    expected.backward()
    for ours, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-5)


def unit(rows, width, seed):
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1).float()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [1, 2, 17])
@pytest.mark.parametrize("chunk", [losses.CHUNK, 20])
def test_arc_margin_equals_the_loop(seed, classes, chunk, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", chunk)  # 20: two classes at a time
    embeddings, centers = unit(9, 8, seed), 3 * unit(classes, 8, seed + 100)
    embeddings[1] = embeddings[0]  # a duplicate
    centers[-1] = 2 * centers[0]  # a class that is another's duplicate
    labels = torch.randint(classes, (9,), generator=torch.Generator().manual_seed(seed))
    assert_same_with_gradients(
        lambda z, w: arc_margin_loss(z, w, labels, SCALE, MARGIN), lambda z, w: arc_margin_reference(z, w, labels), embeddings, centers
    )


def test_arc_margin_equals_the_loop_where_the_margin_is_steep():
    """Centers at 1e-3 to 1e-2 rad of the image, and on the other side: fp32 cosines alone would be wrong by a tenth of the gradient."""
    embeddings, across = unit(6, 8, 1).double(), unit(6, 8, 2).double()
    across = normalize(across - (across * embeddings).sum(dim=1, keepdim=True) * embeddings, dim=1)
    angles = torch.tensor([1e-3, 3e-3, 1e-2, math.pi - 1e-3, math.pi - 1e-2, 1.0], dtype=torch.float64)[:, None]
    centers = (torch.cos(angles) * embeddings + torch.sin(angles) * across).float()
    labels = torch.arange(6)
    fast, slow = centers.clone().requires_grad_(), centers.double().requires_grad_()
    arc_margin_loss(embeddings.float(), fast, labels, SCALE, MARGIN).backward()
    arc_margin_reference(embeddings.float(), slow, labels).backward()
    assert float(slow.grad.norm()) > 0.1
    torch.testing.assert_close(fast.grad.double(), slow.grad, rtol=1e-3, atol=1e-5)


def test_arc_margin_in_double_passes_gradcheck():
    embeddings, centers = unit(5, 6, 3).double().requires_grad_(), (2 * unit(7, 6, 4).double()).requires_grad_()
    labels = torch.tensor([0, 3, 3, 6, 1])

    def weighted(z, w):
        return 0.75 * arc_margin_loss(z, w, labels, 5.0, 0.3)

    assert torch.autograd.gradcheck(weighted, (embeddings, centers))
    assert weighted(embeddings, centers).dtype == torch.float64


def own_logit(angle, margin):
    """The own class's logit at this angle and its slope by the angle: from the loss against one other class, at 90° to both."""
    angle = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
    image = torch.stack([torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)])[None]
    centers = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    loss = arc_margin_loss(image, centers, torch.tensor([0]), SCALE, margin)
    logit = -torch.log(torch.expm1(loss))  # loss = log(1 + e^(0 − logit))
    return float(logit.detach()), float(torch.autograd.grad(logit, angle)[0])


@pytest.mark.parametrize("angle", [1.0, 2.0, math.pi - 0.6, math.pi - 0.4, math.pi - 0.1])
def test_the_margin_is_the_plain_formula_at_every_angle(angle):
    """Neither of ArcFace's two other rules, an easy margin (none for cos θ ≤ 0) or the line cos θ − m·sin m beyond π − m."""
    value, slope = own_logit(angle, 0.5)
    assert value == pytest.approx(SCALE * math.cos(angle + 0.5), rel=1e-6)
    assert (slope > 0) == (angle > math.pi - 0.5), "the logit falls up to π − m and rises beyond"


def test_at_pi_the_clamp_s_angle_counts():
    embeddings, centers = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    loss = arc_margin_loss(embeddings, centers, torch.tensor([0]), SCALE, 0.5)
    angle = math.acos(-1 + 1e-7)  # 4.5e-4 short of π
    assert float(loss) == pytest.approx(math.log1p(math.exp(-SCALE * math.cos(angle + 0.5))), rel=1e-6)


def test_a_label_that_is_no_class_raises():
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        arc_margin_loss(unit(2, 4, 0), unit(3, 4, 1), torch.tensor([0, 3]), SCALE, MARGIN)


def test_arc_margin_by_hand():
    # one class at 0 rad, one at 90 degrees; the image at 0 rad of the first: s·cos(0 + m) against s·cos(90°)
    embeddings, centers = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    # cos is clamped to 1 - 1e-7, an angle of acos(1 - 1e-7)
    angle = math.acos(1 - 1e-7)
    expected = math.log1p(math.exp(SCALE * (0.0 - math.cos(angle + MARGIN))))
    assert float(arc_margin_loss(embeddings, centers, torch.tensor([0]), SCALE, MARGIN)) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masked", [False, True])
def test_multi_caption_equals_the_loop(seed, masked):
    generator = torch.Generator().manual_seed(seed)
    embeddings, captions = unit(6, 8, seed), unit(11, 8, seed + 50)
    captions[3] = captions[4]
    embeddings[2] = embeddings[1]
    positives = torch.rand(6, 11, generator=generator) < 0.3
    positives[:, 0] |= ~positives.any(dim=1)
    positives[5] = True  # every candidate is its own
    # an image's own caption stays its positive, also if it is marked
    ignored = torch.rand(6, 11, generator=generator) < 0.3 if masked else None
    assert_same_with_gradients(
        lambda z, t: multi_caption_arc_margin_loss(z, t, positives, SCALE, MARGIN, ignored),
        lambda z, t: multi_caption_reference(z, t, positives, ignored),
        embeddings,
        captions,
    )


def test_an_image_without_captions_adds_nothing():
    embeddings, captions = unit(3, 8, 1).requires_grad_(), unit(4, 8, 2)
    positives = torch.tensor([[True, False, True, False], [False] * 4, [False, True, False, False]])
    loss = multi_caption_arc_margin_loss(embeddings, captions, positives, SCALE, MARGIN)
    others = multi_caption_arc_margin_loss(embeddings[[0, 2]], captions, positives[[0, 2]], SCALE, MARGIN)
    torch.testing.assert_close(loss, others * 2 / 3)
    loss.backward()
    assert torch.equal(embeddings.grad[1], torch.zeros(8))
    assert torch.isfinite(embeddings.grad).all()
    nobody = multi_caption_arc_margin_loss(embeddings, captions[:0], positives[:, :0], SCALE, MARGIN)
    assert float(nobody.detach()) == 0.0


def test_one_caption_an_image_is_arc_margin_on_those_captions():
    captions = unit(6, 8, 2)
    embeddings = torch.cat([unit(3, 8, 1), captions[3:4], -captions[4:5], unit(1, 8, 5)])  # two at the poles
    gradients = []
    for loss in (
        lambda z, t: multi_caption_arc_margin_loss(z, t, torch.eye(6, dtype=torch.bool), SCALE, MARGIN),
        lambda z, t: arc_margin_loss(z, t, torch.arange(6), SCALE, MARGIN),
    ):
        images = embeddings.clone().requires_grad_()
        value = loss(images, captions)
        value.backward()
        gradients.append((value.detach(), images.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_does_not_reach_the_losses(dtype):
    embeddings, centers = unit(5, 8, 1).to(dtype), unit(7, 8, 2)
    labels, positives = torch.tensor([0, 1, 2, 3, 6]), torch.eye(5, 7, dtype=torch.bool)

    def both(z):
        return arc_margin_loss(z, centers, labels, SCALE, MARGIN) + multi_caption_arc_margin_loss(z, centers, positives, SCALE, MARGIN)

    outside, inside = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    expected = both(outside)
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = both(inside)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert torch.equal(inside.grad, outside.grad)
    assert inside.grad.dtype == dtype


def peak_bytes(step):
    """The most that is allocated at once during `step`, beyond what is there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def dense_arc_margin(embeddings, centers, labels, scale, margin):
    cosines = embeddings @ normalize(centers, dim=1).T
    own = one_hot(labels, len(centers)).float()
    with_margin = cosines * math.cos(margin) - torch.sqrt(1 - cosines.square()) * math.sin(margin)
    return cross_entropy(scale * (own * with_margin + (1 - own) * cosines), labels)


def test_memory_of_many_classes():
    images, classes, width = 32, 20_000, 256
    embeddings, centers = unit(images, width, 0).requires_grad_(), unit(classes, width, 1).requires_grad_()
    labels = torch.randint(classes, (images,), generator=torch.Generator().manual_seed(0))
    # of the centers' size: their gradient and one more
    allowed = 2 * centers.nbytes + 2.5 * images * classes * 4

    def step(loss):
        embeddings.grad = centers.grad = None
        loss(embeddings, centers, labels, SCALE, MARGIN).backward()

    assert centers.nbytes < peak_bytes(lambda: step(arc_margin_loss)) < allowed
    assert peak_bytes(lambda: step(dense_arc_margin)) > allowed


@pytest.mark.parametrize("count", [0, 5, 12, 40])
def test_sampled_classes_hold_those_of_the_batch(count):
    labels = torch.tensor([7, 2, 7, 19])
    chosen, places = sample_classes(labels, 20, count, torch.Generator().manual_seed(0))
    assert len(chosen) == min(max(count, 3), 20)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen[places], labels)


def test_classes_that_another_rank_has_are_not_sampled():
    labels = torch.tensor([-3, 2, 20, 19])
    chosen, places = sample_classes(labels, 20, 6, torch.Generator().manual_seed(0))
    assert len(chosen) == 6
    assert places[[0, 2]].tolist() == [-1, -1]
    assert chosen[places[[1, 3]]].tolist() == [2, 19]
    assert sample_classes(torch.tensor([-1]), 20, 0, torch.Generator())[0].tolist() == []


def test_others_are_sampled_evenly():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([sample_classes(torch.tensor([3]), 10, 4, generator)[0] for _ in range(600)]).bincount(minlength=10)
    assert drawn[3] == 600
    others = drawn[torch.arange(10) != 3]  # 200 each, expected
    assert others.min() > 150
    assert others.max() < 250


def test_a_sampled_step_touches_the_chosen_rows_alone():
    classes = 50
    centers = torch.nn.Embedding(classes, 8, sparse=True)
    optimizer = torch.optim.SparseAdam(centers.parameters(), lr=0.1)
    before, labels = centers.weight.detach().clone(), torch.tensor([7, 2, 7, 19])
    chosen, places = sample_classes(labels, classes, 10, torch.Generator().manual_seed(0))
    arc_margin_loss(unit(4, 8, 1), centers(chosen), places, SCALE, MARGIN).backward()
    optimizer.step()
    touched = torch.zeros(classes, dtype=torch.bool).index_fill(0, chosen, True)
    assert torch.equal((centers.weight != before).any(dim=1), touched)
    for moment in ("exp_avg", "exp_avg_sq"):
        assert torch.equal((optimizer.state[centers.weight][moment] != 0).any(dim=1), touched)


def test_all_classes_sampled_is_the_whole_loss():
    embeddings, centers, labels = unit(4, 8, 1), unit(6, 8, 2), torch.tensor([5, 0, 3, 3])
    chosen, places = sample_classes(labels, 6, 6, torch.Generator())
    whole = arc_margin_loss(embeddings, centers, labels, SCALE, MARGIN)
    assert torch.equal(arc_margin_loss(embeddings, centers[chosen], places, SCALE, MARGIN), whole)
