"""Stage one's losses in two real processes (gloo), class centers sharded, against one process on the same global batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from assets.image_tower.captions import CaptionSets
from assets.image_tower.losses import arc_margin_loss, multi_caption_arc_margin_loss, sharded_arc_margin_loss
from assets.training.distributed import rank, shard

RANKS, IMAGES, CLASSES, WIDTH = 2, 8, 7, 6  # images of the global batch
SCALE, MARGIN, CAPTION_WEIGHT = 30.0, 0.1, 0.25


def tower():
    torch.manual_seed(0)
    return torch.nn.Linear(5, WIDTH)


def batch():
    """(images, labels, class centers, captions of the images, caption embeddings)."""
    generator = torch.Generator().manual_seed(1)
    images, centers = torch.randn(IMAGES, 5, generator=generator), 2 * torch.randn(CLASSES, WIDTH, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    captions = CaptionSets.from_lists([[0, 1], [1], [2, 3], [4], [5, 0], [6], [], [7, 8]], np.array([0, 1, 1, 2, 3, 0, 4, 5, 2]))
    return images, labels, centers, captions, normalize(torch.randn(9, WIDTH, generator=generator), dim=1)


def caption_loss(embedded: torch.Tensor, captions: CaptionSets, embeddings: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    candidates, positives, ignored = captions.of_batch(rows, np.arange(IMAGES))
    masks = torch.from_numpy(positives), SCALE, MARGIN, torch.from_numpy(ignored)
    return multi_caption_arc_margin_loss(embedded, embeddings[torch.from_numpy(candidates)], *masks)


def on_one_process():
    images, labels, centers, captions, caption_embeddings = batch()
    model, centers = tower(), centers.requires_grad_()
    embedded = normalize(model(images), dim=1)
    class_loss = arc_margin_loss(embedded, centers, labels, SCALE, MARGIN)
    loss = (1 - CAPTION_WEIGHT) * class_loss + CAPTION_WEIGHT * caption_loss(embedded, captions, caption_embeddings, np.arange(IMAGES))
    loss.backward()
    return loss.detach(), class_loss.detach(), model.weight.grad, centers.grad


def on_a_rank(own_rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=own_rank, world_size=RANKS)
    try:
        torch.save(step(), f"{folder}/{own_rank}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def step():
    images, labels, centers, captions, caption_embeddings = batch()
    rows = np.arange(IMAGES).reshape(RANKS, -1)[rank()]
    classes = shard(CLASSES)  # 3 and 4 of them
    model, own_centers = DistributedDataParallel(tower()), centers[classes.start : classes.stop].clone().requires_grad_()
    embedded = normalize(model(images[rows]), dim=1)
    class_loss = sharded_arc_margin_loss(embedded, own_centers, labels[rows], SCALE, MARGIN, first_class=classes.start)
    loss = (1 - CAPTION_WEIGHT) * class_loss + CAPTION_WEIGHT * caption_loss(embedded, captions, caption_embeddings, rows)
    loss.backward()
    unknown = sharded_arc_margin_loss(embedded.detach(), own_centers.detach(), labels[rows] + 1, SCALE, MARGIN, first_class=classes.start)
    return loss.detach(), class_loss.detach(), model.module.weight.grad, own_centers.grad, unknown


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(on_a_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(Path(folder, f"{own_rank}.pt"), weights_only=True) for own_rank in range(RANKS)]


def test_loss_and_gradients_are_those_of_one_process(ranks):
    loss, class_loss, tower_gradient, center_gradient = on_one_process()
    torch.testing.assert_close(torch.stack([results[0] for results in ranks]).mean(), loss, rtol=1e-5, atol=1e-5)
    for results in ranks:
        torch.testing.assert_close(results[1], class_loss, rtol=1e-5, atol=1e-5)  # on every rank
        torch.testing.assert_close(results[2], tower_gradient, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([results[3] for results in ranks]), center_gradient, rtol=1e-5, atol=1e-5)
    assert tower_gradient.norm() > 0.1


def test_a_label_that_no_rank_has_makes_the_loss_nan(ranks):
    assert all(torch.isnan(results[4]) for results in ranks)


def test_of_one_process_it_is_the_plain_loss():
    images, labels, centers, _, _ = batch()
    embedded = normalize(tower()(images), dim=1)
    plain = arc_margin_loss(embedded, centers, labels, SCALE, MARGIN)
    assert torch.equal(sharded_arc_margin_loss(embedded, centers, labels, SCALE, MARGIN, first_class=0), plain)
