"""Contrastive losses between images and texts in which pairs that belong together are never negatives.

Shapes: B pairs, d embedding.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy, logsigmoid

MAX_LOGIT_SCALE = math.log(100)  # CLIP's own bound


def info_nce_loss(images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, related: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE (CLIP, arXiv 2103.00020) over unit-norm images [B, d] and texts [B, d]; the mean over both directions.

    `related` bool [B, B], image i and text j: such pairs leave the denominator, except the pair itself on the diagonal.
    """
    logits = logit_scale * images.float() @ texts.float().T
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(related & ~own, -torch.inf)
    targets = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2


def sigmoid_loss(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, logit_bias: torch.Tensor, related: torch.Tensor
) -> torch.Tensor:
    """Pairwise sigmoid loss (SigLIP, arXiv 2303.15343), summed over texts, the mean over images; `related` as in `info_nce_loss`."""
    logits = logit_scale * images.float() @ texts.float().T + logit_bias
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    signs = torch.where(own, 1.0, -1.0)
    losses = -logsigmoid(signs * logits).masked_fill(related & ~own, 0.0)
    return losses.sum(dim=1).mean()
