"""Two real processes (gloo) against one that holds everything: both stages' losses on the same global batch, gathering, clipping.

Stage one's are here too, since starting the processes is what takes the time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from assets.errors import UserError
from assets.image_tower.captions import CaptionSets
from assets.image_tower.losses import arc_margin_loss, multi_caption_arc_margin_loss, sharded_arc_margin_loss
from assets.training.contrastive import global_info_nce_loss, global_sigmoid_loss, info_nce_loss, sigmoid_loss
from assets.training.distributed import clip_gradients_, gather, logsumexp_over_ranks, rank, shard, world_size
from assets.training.relations import relation_loss

CONTRASTIVE = ("info_nce", "sigmoid", "relations")
RANKS, PAIRS, WIDTH, CLASSES = 2, 8, 6, 7  # pairs of the global batch
SCALE, MARGIN, CAPTION_WEIGHT = 30.0, 0.1, 0.25


class Towers(torch.nn.Module):
    """A linear image tower and text tower, a logit scale and a bias."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image, self.text = (torch.nn.Parameter(torch.randn(5, WIDTH, generator=generator)) for _ in range(2))
        self.logit_scale, self.logit_bias = torch.nn.Parameter(torch.tensor(2.0)), torch.nn.Parameter(torch.tensor(-3.0))

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embedded = (normalize(images @ self.image, dim=1), normalize(texts @ self.text, dim=1))
        return *embedded, self.logit_scale.exp(), self.logit_bias * 1


def batch():
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(PAIRS, 5, generator=generator), torch.randn(PAIRS, 5, generator=generator)
    return images, texts, torch.rand(PAIRS, PAIRS, generator=generator) < 0.2


def contrastive_on_one_process():
    images, texts, related = batch()
    results = {}
    for name in CONTRASTIVE:
        towers = Towers()
        images_, texts_, scale, bias = towers(images, texts)
        loss = sigmoid_loss(images_, texts_, scale, bias, related) if name == "sigmoid" else info_nce_loss(images_, texts_, scale, related)
        if name == "relations":
            loss = loss + relation_loss(texts_, texts, related, 0.2)
        (loss + 0 * bias).backward()
        results[name] = (loss.detach(), {key: parameter.grad for key, parameter in towers.named_parameters()})
    return results


def tower():
    torch.manual_seed(0)
    return torch.nn.Linear(5, WIDTH)


def margin_batch():
    """(images, labels, class centers, captions of the images, caption embeddings)."""
    generator = torch.Generator().manual_seed(1)
    images, centers = torch.randn(PAIRS, 5, generator=generator), 2 * torch.randn(CLASSES, WIDTH, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    captions = CaptionSets.from_lists([[0, 1], [1], [2, 3], [4], [5, 0], [6], [], [7, 8]], np.array([0, 1, 1, 2, 3, 0, 4, 5, 2]))
    return images, labels, centers, captions, normalize(torch.randn(9, WIDTH, generator=generator), dim=1)


def caption_loss(embedded: torch.Tensor, captions: CaptionSets, embeddings: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    candidates, positives, ignored = captions.of_batch(rows, np.arange(PAIRS))
    masks = torch.from_numpy(positives), SCALE, MARGIN, torch.from_numpy(ignored)
    return multi_caption_arc_margin_loss(embedded, embeddings[torch.from_numpy(candidates)], *masks)


def margin_on_one_process():
    images, labels, centers, captions, caption_embeddings = margin_batch()
    model, centers = tower(), centers.requires_grad_()
    embedded = normalize(model(images), dim=1)
    class_loss = arc_margin_loss(embedded, centers, labels, SCALE, MARGIN)
    loss = (1 - CAPTION_WEIGHT) * class_loss + CAPTION_WEIGHT * caption_loss(embedded, captions, caption_embeddings, np.arange(PAIRS))
    loss.backward()
    return loss.detach(), class_loss.detach(), model.weight.grad, centers.grad


def own_rows() -> np.ndarray:
    return np.arange(PAIRS).reshape(RANKS, -1)[rank()]


def on_a_rank(own_rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=own_rank, world_size=RANKS)
    try:
        results = {**{name: contrastive(name) for name in CONTRASTIVE}, "margin": margin_step(), "pieces": pieces()}
        torch.save(results, f"{folder}/{own_rank}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def contrastive(name: str):
    images, texts, related = batch()
    mine = own_rows()
    towers = DistributedDataParallel(Towers())
    images_, texts_, scale, bias = towers(images[mine], texts[mine])
    if name == "sigmoid":
        loss = global_sigmoid_loss(images_, texts_, scale, bias, related[mine])
    else:
        loss = global_info_nce_loss(images_, texts_, scale, related[mine], related.T[mine])
    if name == "relations":
        loss = loss + relation_loss(texts_, texts[mine], related[mine], 0.2)
    (loss + 0 * bias).backward()
    return loss.detach(), {key: parameter.grad for key, parameter in towers.module.named_parameters()}


def margin_step():
    images, labels, centers, captions, caption_embeddings = margin_batch()
    rows = own_rows()
    classes = shard(CLASSES)  # 3 and 4 of them
    model, own_centers = DistributedDataParallel(tower()), centers[classes.start : classes.stop].clone().requires_grad_()
    embedded = normalize(model(images[rows]), dim=1)
    class_loss = sharded_arc_margin_loss(embedded, own_centers, labels - classes.start, SCALE, MARGIN)
    loss = (1 - CAPTION_WEIGHT) * class_loss + CAPTION_WEIGHT * caption_loss(embedded, captions, caption_embeddings, rows)
    loss.backward()
    unknown = sharded_arc_margin_loss(embedded.detach(), own_centers.detach(), labels - classes.start + 1, SCALE, MARGIN)
    return loss.detach(), class_loss.detach(), model.module.weight.grad, own_centers.grad, unknown


def pieces():
    value = torch.tensor([1.0, -200.0, -torch.inf]) if rank() == 0 else torch.tensor([2.0, 100.0, 3.0])
    value.requires_grad_()
    joint = logsumexp_over_ranks(value)
    joint.sum().backward()
    replicated, sharded = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    replicated.grad, sharded.grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0 + 2 * rank(), 0.0])
    norm = clip_gradients_([replicated, torch.nn.Parameter(torch.zeros(1))], [sharded], max_norm=1.0)
    return {
        "ids": gather(torch.tensor([10 * rank(), 10 * rank() + 1])),
        "joint": joint.detach(),
        "joint_gradient": value.grad,
        "norm": norm,
        "clipped": (replicated.grad, sharded.grad),
        "shard": list(shard(5)),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(on_a_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(Path(folder, f"{own_rank}.pt"), weights_only=True) for own_rank in range(RANKS)]


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_global_loss_and_gradients_are_those_of_one_process(ranks, name):
    expected, gradients = contrastive_on_one_process()[name]
    mean = torch.stack([results[name][0] for results in ranks]).mean()
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5)
    for results in ranks:
        torch.testing.assert_close(results[name][1], gradients, rtol=1e-5, atol=1e-5)
    assert gradients["image"].norm() > 0.01
    assert gradients["text"].norm() > 0.01


def test_margin_losses_and_gradients_are_those_of_one_process(ranks):
    loss, class_loss, tower_gradient, center_gradient = margin_on_one_process()
    torch.testing.assert_close(torch.stack([results["margin"][0] for results in ranks]).mean(), loss, rtol=1e-5, atol=1e-5)
    for results in ranks:
        torch.testing.assert_close(results["margin"][1], class_loss, rtol=1e-5, atol=1e-5)  # on every rank
        torch.testing.assert_close(results["margin"][2], tower_gradient, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([results["margin"][3] for results in ranks]), center_gradient, rtol=1e-5, atol=1e-5)
    assert tower_gradient.norm() > 0.1


def test_a_label_that_no_rank_has_makes_the_loss_nan(ranks):
    assert all(torch.isnan(results["margin"][4]) for results in ranks)


def test_of_one_process_the_sharded_loss_is_the_plain_one():
    images, labels, centers, _, _ = margin_batch()
    embedded = normalize(tower()(images), dim=1)
    plain = arc_margin_loss(embedded, centers, labels, SCALE, MARGIN)
    assert torch.equal(sharded_arc_margin_loss(embedded, centers, labels, SCALE, MARGIN), plain)


def test_gather_and_logsumexp(ranks):
    joint = torch.logaddexp(torch.tensor([1.0, -200.0, -torch.inf]), torch.tensor([2.0, 100.0, 3.0]))
    share = torch.tensor([1.0, -200.0, -torch.inf]).sub(joint).exp()
    for results in ranks:
        assert results["pieces"]["ids"].tolist() == [0, 1, 10, 11]
        torch.testing.assert_close(results["pieces"]["joint"], joint)
    torch.testing.assert_close(ranks[0]["pieces"]["joint_gradient"], share)
    torch.testing.assert_close(ranks[1]["pieces"]["joint_gradient"], 1 - share)


def test_clipping_sees_all_shards(ranks):
    norm = 5.0  # of (1, 2), shared, and (2, 0) and (4, 0), a rank's each
    for own_rank, results in enumerate(ranks):
        torch.testing.assert_close(results["pieces"]["norm"], torch.tensor(norm))
        replicated, sharded = results["pieces"]["clipped"]
        torch.testing.assert_close(replicated, torch.tensor([1.0, 2.0]) / norm)
        torch.testing.assert_close(sharded, torch.tensor([2.0 + 2 * own_rank, 0.0]) / norm)


def test_shards_cover_the_classes(ranks):
    assert [number for results in ranks for number in results["pieces"]["shard"]] == [0, 1, 2, 3, 4]


def test_without_a_process_group_there_is_one_rank():
    rows = torch.ones(2, 3)
    assert (world_size(), rank(), list(shard(3))) == (1, 0, [0, 1, 2])
    assert gather(rows) is rows
    assert logsumexp_over_ranks(rows) is rows
    with pytest.raises(UserError, match="Start at most 0"):
        shard(0)
