"""Contrastive losses between images and texts in which pairs that belong together are never negatives; in fp32, also inside autocast.

Shapes: B pairs, d embedding; with several processes b pairs of this rank, as many on every rank, B of all. Double inputs stay double.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from assets.training.distributed import gather, rank, world_size

MAX_LOGIT_SCALE = math.log(100)  # CLIP's own bound


def info_nce_loss(images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, related: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE (CLIP, arXiv 2103.00020) over unit-norm images [B, d] and texts [B, d]; the mean over both directions.

    `related` bool [B, B], image i and text j: such pairs leave the denominator, except the pair itself on the diagonal.
    """
    with torch.autocast(images.device.type, enabled=False):
        own = torch.arange(len(images), device=images.device)
        logits = _products(images, texts, logit_scale).masked_fill(_not_own(related, own), -torch.inf)
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def image_to_texts_loss(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, own: torch.Tensor, ignored: torch.Tensor
) -> torch.Tensor:
    """The images' half of InfoNCE, where an image has several texts of its own; the mean over B of

    −(1/|P_i|) Σ_{k∈P_i} log( e^{s·cos_ik} / Σ_{j∉I_i} e^{s·cos_ij} ), which is L_out of SupCon (arXiv 2004.11362, eq. 2).

    images [B, d] and texts [T, d] unit norm, T as many as there are, not those of the batch alone; own bool [B, T] (P): at least one an
    image; ignored bool [B, T] (I): texts that are no negatives of the image although they are not its own.
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = _products(images, texts, logit_scale)
        mean_own = (logits * own).sum(dim=1) / own.sum(dim=1)
        return (logits.masked_fill(ignored & ~own, -torch.inf).logsumexp(dim=1) - mean_own).mean()


def texts_to_images_loss(images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, related: torch.Tensor) -> torch.Tensor:
    """The texts' half of `info_nce_loss`: images [B, d], texts [B, d] and `related` [B, B] as there."""
    with torch.autocast(images.device.type, enabled=False):
        own = torch.arange(len(images), device=images.device)
        return cross_entropy(_products(texts, images, logit_scale).masked_fill(_not_own(related.T, own), -torch.inf), own)


def global_info_nce_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    related_texts: torch.Tensor,
    related_images: torch.Tensor,
) -> torch.Tensor:
    """This rank's part of `info_nce_loss` of the global batch, which is the mean over ranks; negatives come from all ranks.

    images [b, d] and texts [b, d] of this rank; related_texts bool [b, B]: own image i and everyone's text j; related_images bool [b, B]:
    own text i and everyone's image j (the rank's rows of the whole `related`, and of its transpose). Gradients reach the other ranks'
    embeddings too: averaged over ranks, as DistributedDataParallel does, a tower's are the global loss's.
    """
    with torch.autocast(images.device.type, enabled=False):
        own = torch.arange(len(images), device=images.device) + rank() * len(images)
        if world_size() == 1:
            return info_nce_loss(images, texts, logit_scale, related_texts)
        to_texts = _products(images, gather(texts), logit_scale).masked_fill(_not_own(related_texts, own), -torch.inf)
        to_images = _products(texts, gather(images), logit_scale).masked_fill(_not_own(related_images, own), -torch.inf)
        return (cross_entropy(to_texts, own) + cross_entropy(to_images, own)) / 2


def sigmoid_loss(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, logit_bias: torch.Tensor, related: torch.Tensor
) -> torch.Tensor:
    """Pairwise sigmoid loss (SigLIP, arXiv 2303.15343), summed over texts, the mean over images; `related` as in `info_nce_loss`."""
    return _sigmoid(images, texts, logit_scale, logit_bias, related, first=0)


def global_sigmoid_loss(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, logit_bias: torch.Tensor, related_texts: torch.Tensor
) -> torch.Tensor:
    """This rank's part of `sigmoid_loss` of the global batch, which is the mean over ranks; arguments as in `global_info_nce_loss`."""
    return _sigmoid(images, gather(texts), logit_scale, logit_bias, related_texts, first=rank() * len(images))


def _sigmoid(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    related: torch.Tensor,
    *,
    first: int,  # the text of image 0
) -> torch.Tensor:
    with torch.autocast(images.device.type, enabled=False):
        own = torch.arange(len(images), device=images.device) + first
        logits = _products(images, texts, logit_scale) + logit_bias
        signs = torch.full_like(logits, -1).scatter_(1, own[:, None], 1)
        losses = -logsigmoid(signs * logits).masked_fill(_not_own(related, own), 0.0)
        return losses.sum(dim=1).mean()


def _products(rows: torch.Tensor, columns: torch.Tensor, logit_scale: torch.Tensor) -> torch.Tensor:
    """Scaled dot products, in fp32 or, if an input is, in double."""
    dtype = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
    return logit_scale.to(dtype) * rows.to(dtype) @ columns.to(dtype).T


def _not_own(related: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """`related` [b, B] without each row's own column [b]."""
    return related.scatter(1, own[:, None], False)
