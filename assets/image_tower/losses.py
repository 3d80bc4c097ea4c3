"""The two margin losses of stage one (arXiv 2409.01936, section 3), as pure functions in fp32.

Shapes: B images, d embedding, C classes, K candidate captions.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import cross_entropy, normalize

CLAMP = 1 - 1e-7  # where cos = ±1 the margin's gradient has no bound


def arc_margin_loss(
    embeddings: torch.Tensor, class_centers: torch.Tensor, labels: torch.Tensor, scale: float, margin: float
) -> torch.Tensor:
    """ArcMargin: cross-entropy over s·cos(θ + m·[class = y]); the mean over B.

    embeddings [B, d] unit norm, class_centers [C, d] normalised here, labels int64 [B], scale s, margin m in rad.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        cosines = (embeddings.float() @ normalize(class_centers.float(), dim=1).T).clamp(-CLAMP, CLAMP)
        own = labels[:, None]
        with_margin = _add_margin(cosines.gather(1, own), margin)
        return cross_entropy(scale * cosines.scatter(1, own, with_margin), labels)


def multi_caption_arc_margin_loss(
    embeddings: torch.Tensor,
    caption_embeddings: torch.Tensor,
    positives: torch.Tensor,
    scale: float,
    margin: float,
    ignored: torch.Tensor | None = None,
) -> torch.Tensor:
    """MCArcMargin: every caption of the batch is a candidate, an image's own are its positives; the mean over B of

    L_i = −(1/|P_i|) Σ_{k∈P_i} log( e^{s·cos(θ_ik+m)} / (Σ_{p∈P_i} e^{s·cos(θ_ip+m)} + Σ_{j∉P_i} e^{s·cosθ_ij}) )

    embeddings [B, d] and caption_embeddings [K, d] unit norm, positives bool [B, K] with at least one true a row. `ignored`
    bool [B, K]: candidates that are no negatives of the row's image although they are not its own (captions of one cluster).
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        cosines = (embeddings.float() @ caption_embeddings.float().T).clamp(-CLAMP, CLAMP)
        logits = scale * torch.where(positives, _add_margin(cosines, margin), cosines)
        own = logits.masked_fill(~positives, 0.0).sum(dim=1) / positives.sum(dim=1)
        if ignored is not None:
            logits = logits.masked_fill(ignored & ~positives, -torch.inf)
        return (logits.logsumexp(dim=1) - own).mean()


def _add_margin(cosines: torch.Tensor, margin: float) -> torch.Tensor:
    """cos(θ + m) from cos θ, by the addition theorem."""
    return cosines * math.cos(margin) - torch.sqrt(1 - cosines.square()) * math.sin(margin)
