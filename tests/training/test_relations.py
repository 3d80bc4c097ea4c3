"""Relations kept, against a plain loop in double."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from assets.training.relations import relation_loss

TEMPERATURE = 0.3


def rows(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def divergence(embeddings, teacher, left_out):
    total = 0.0
    for i in range(len(embeddings)):
        others = [j for j in range(len(embeddings)) if j != i and not left_out[i, j]]
        p, q = (
            [math.exp(float(cosine_similarity(side[i], side[j], dim=0)) / TEMPERATURE) for j in others] for side in (teacher, embeddings)
        )
        total += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    return total / len(embeddings)


def test_it_equals_the_loop():
    """Of other widths and norms, with pairs left out, one row's all but one, and another's all."""
    embeddings, teacher, left_out = rows(6, 5, 0), 7 * rows(6, 9, 1), torch.zeros(6, 6, dtype=torch.bool)
    left_out[0, [2, 5]] = left_out[3, [0, 1, 2, 4]] = left_out[4] = True
    found = relation_loss(embeddings, teacher, left_out, TEMPERATURE)
    assert float(found) == pytest.approx(divergence(embeddings, teacher, left_out), rel=1e-12)


def test_a_turned_and_stretched_embedding_has_the_same_relations():
    teacher, none = rows(8, 4, 2), torch.zeros(8, 8, dtype=torch.bool)
    turn = torch.linalg.qr(rows(4, 4, 3)).Q
    assert float(relation_loss(3 * teacher @ turn, teacher, none, TEMPERATURE)) == pytest.approx(0, abs=1e-12)
    assert float(relation_loss(rows(8, 4, 4), teacher, none, TEMPERATURE)) > 0.1


def test_gradients_in_double_pass_gradcheck_and_the_teacher_has_none():
    embeddings, teacher = rows(5, 4, 5).requires_grad_(), rows(5, 6, 6).requires_grad_()
    left_out = torch.zeros(5, 5, dtype=torch.bool)
    left_out[1, 2] = left_out[4] = True
    assert torch.autograd.gradcheck(lambda z: relation_loss(z, teacher.detach(), left_out, TEMPERATURE), (embeddings,))
    relation_loss(embeddings, teacher, left_out, TEMPERATURE).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_without_relations_has_no_loss_and_no_nan(count):
    embeddings = rows(count, 4, 7).float().requires_grad_()
    loss = relation_loss(embeddings, rows(count, 4, 8).float(), torch.zeros(count, count, dtype=torch.bool), TEMPERATURE)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(embeddings.grad).all()


def test_autocast_does_not_reach_it():
    embeddings, teacher, none = rows(4, 6, 9).float(), rows(4, 6, 10).float(), torch.zeros(4, 4, dtype=torch.bool)
    expected = relation_loss(embeddings, teacher, none, TEMPERATURE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(relation_loss(embeddings, teacher, none, TEMPERATURE), expected)
