"""How the members of a batch lie to each other, kept as another embedding has it; in fp32, also inside autocast."""

from __future__ import annotations

import torch
from torch.nn.functional import kl_div, normalize

from assets.training.distributed import gather, rank


def relation_loss(embeddings: torch.Tensor, teacher: torch.Tensor, left_out: torch.Tensor, temperature: float) -> torch.Tensor:
    """The mean over B of KL(p_i ‖ q_i): p_i and q_i are the softmax over j of cos(i, j) / temperature by teacher and by embeddings.

    STRUCTURE (arXiv 2506.16895) keeps the geometry of a locked encoder so, by the Jensen-Shannon divergence of several levels; KL has
    the same minimum. embeddings [b, d], teacher [b, w] without gradient; neither has to be unit norm.
    left_out bool [b, B]: what j may not be, besides i itself. With several processes b are this rank's members, B all ranks', and the loss
    of the global batch is the mean over ranks. A member that has no other adds 0.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        own = torch.arange(len(embeddings), device=embeddings.device) + rank() * len(embeddings)
        left_out = left_out.scatter(1, own[:, None], True)
        with torch.no_grad():
            wanted = _log_relations(teacher, left_out, temperature)
        found = _log_relations(embeddings, left_out, temperature)
        return kl_div(found, wanted, reduction="sum", log_target=True) / len(embeddings)


def _log_relations(rows: torch.Tensor, left_out: torch.Tensor, temperature: float) -> torch.Tensor:
    """log p [b, B]; 0 where left out, which then adds nothing to a divergence."""
    unit = normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=1)
    cosines = unit @ gather(unit).T / temperature
    # finite: a row that has no other must not become nan
    return cosines.masked_fill(left_out, torch.finfo(cosines.dtype).min).log_softmax(dim=1).masked_fill(left_out, 0.0)
