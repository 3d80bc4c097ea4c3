"""The two margin losses of stage one (arXiv 2409.01936, section 3), as pure functions in fp32, also inside autocast.

Shapes: B images, d embedding, C classes, K candidate captions; with several processes b images of this rank, B of all.

Both take cos(θ + m) at every θ. ArcFace's code continues it beyond θ = π − m by the straight line cos θ − m·sin m, so that it goes on
falling; here it rises again, so an image beyond π − m from its own class (cos below −0.995 for m = 0.1) is drawn to the opposite pole.
ArcFace's "easy margin", a margin only where cos θ > 0, is another thing, which neither has. Double inputs are computed in double.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from assets.training.distributed import gather, logsumexp_over_ranks, world_size

CLAMP = 1 - 1e-7  # where cos = ±1 the margin's gradient has no bound
SMALLEST_NORM = 1e-12  # that a class center is divided by, as torch's normalize has it
CHUNK = 2**18  # logits worked on at once: few enough to stay in a CPU's cache …
MOST_CHUNKS = 16  # … and enough to keep an accelerator busy


def arc_margin_loss(
    embeddings: torch.Tensor, class_centers: torch.Tensor, labels: torch.Tensor, scale: float, margin: float
) -> torch.Tensor:
    """ArcMargin: cross-entropy over s·cos(θ + m·[class = y]); the mean over B.

    embeddings [B, d] unit norm, class_centers [C, d] normalised here, labels int64 [B], scale s, margin m in rad. Cosines are clamped to
    ±(1 − 1e-7), beyond which their gradient is 0. Beside the gradients it takes little more than one [B, C] array.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings, class_centers = _working(embeddings, class_centers)
        own_centers = class_centers.detach().index_select(0, labels)  # raises for a label that is no class
        log_sum, own = _MarginLogits.apply(embeddings, class_centers, labels, own_centers, scale, margin)
        return (log_sum - own).mean()


def sharded_arc_margin_loss(
    embeddings: torch.Tensor, class_centers: torch.Tensor, columns: torch.Tensor, scale: float, margin: float
) -> torch.Tensor:
    """`arc_margin_loss` of the global batch with the classes spread over ranks; every rank returns the same value.

    embeddings [b, d] of this rank's images, b the same on all; class_centers [C of this rank, d]; columns int64 [B] of all ranks' images:
    the row of class_centers that is the own class's, any number outside 0 … C − 1 where another rank has it. No rank holds all logits.
    Gradients: the embeddings' are such that averaging over ranks (DistributedDataParallel) makes them the global loss's; the centers' are
    so already and must not be averaged.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings, class_centers = _working(embeddings, class_centers)
        everyone = gather(embeddings, gradient_factor=world_size())
        elsewhere = (columns < 0) | (columns >= len(class_centers))
        own_centers = class_centers.detach()[columns.masked_fill(elsewhere, 0)]
        log_sum, own = _MarginLogits.apply(everyone, class_centers, columns, own_centers, scale, margin)
        own = own.masked_fill(elsewhere, -torch.inf)  # but on one rank; a label that no rank has makes the loss nan
        return (logsumexp_over_ranks(log_sum) - logsumexp_over_ranks(own)).mean()


def sample_classes(labels: torch.Tensor, classes: int, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """For millions of classes (Partial FC, arXiv 2203.15565): (chosen int64 [S] sorted, the labels' places among them int64 [B]).

    All classes of the labels int64 [B] are chosen, then others at random until there are `count`, all of them where there are no more. A
    label outside 0 … classes − 1, which another rank has, has the place −1. A loss of `embedding(chosen, centers, sparse=True)` and the
    places reads and, with SparseAdam, changes the chosen centers alone.
    """
    here = (labels >= 0) & (labels < classes)
    own = torch.unique(labels[here])
    others = torch.ones(classes, dtype=torch.bool, device=labels.device).index_fill_(0, own, False).nonzero().squeeze(1)
    wanted = min(max(count - len(own), 0), len(others))
    order = torch.randperm(len(others), generator=generator, device=generator.device)[:wanted].to(labels.device)
    chosen = torch.cat([own, others[order]]).sort().values
    return chosen, torch.searchsorted(chosen, labels).where(here, -1)


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

    embeddings [B, d] and caption_embeddings [K, d] unit norm, positives bool [B, K]; an image without any has L_i = 0. `ignored`
    bool [B, K]: candidates that are no negatives of the row's image although they are not its own (captions of one cluster). Cosines
    are clamped as in `arc_margin_loss`. With several processes: this rank's images, the captions of all ranks' images as candidates
    (`CaptionSets.of_batch`); the global batch's loss is the mean over ranks.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        images, captions = _working(embeddings, caption_embeddings)
        row, column = positives.nonzero(as_tuple=True)
        cosines = images @ captions.T
        own = _finest(cosines[row, column])
        exact = (_finest(images.detach()[row]) * _finest(captions.detach()[column])).sum(dim=1)
        own, _ = _with_margin(own + (exact - own).detach(), margin)  # the value of one, the gradient of the other
        own = (scale * own).to(images.dtype)
        logits = (scale * cosines.clamp(-CLAMP, CLAMP)).index_put((row, column), own)
        if ignored is not None:
            logits = logits.masked_fill(ignored & ~positives, -torch.inf)
        count = positives.sum(dim=1)
        mean_own = torch.zeros_like(count, dtype=own.dtype).index_add(0, row, own) / count.clamp(min=1)
        return torch.where(count > 0, logits.logsumexp(dim=1) - mean_own, 0.0).mean()


class _MarginLogits(torch.autograd.Function):
    """(log Σ_c e^{logit_c} [B], the own class's logit [B]) of logits s·cos(θ + m·[class = y]).

    columns int64 [B]: the own class's; where that is outside 0 … C − 1, no column has the margin. own_centers [B, d]: its center.

    Cosines are kept for backward; logits, softmax and gradients are made for a chunk of classes at a time. The own class's cosine is
    taken in double: near ±1 the margin's slope multiplies its error.
    """

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: torch.Tensor,
        centers: torch.Tensor,
        columns: torch.Tensor,
        own_centers: torch.Tensor,
        scale: float,
        margin: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inverse = torch.linalg.vector_norm(centers, dim=1).clamp_(min=SMALLEST_NORM).reciprocal_()
        own, slope = _with_margin((_finest(embeddings) * normalize(_finest(own_centers), dim=1)).sum(dim=1), margin)
        own, slope = (scale * own).to(embeddings.dtype), (scale * slope).to(embeddings.dtype)
        cosines = embeddings @ centers.T
        log_sums = []
        for start, stop in _chunks(cosines):
            logits = cosines[:, start:stop].mul_(inverse[start:stop]).clamp(-CLAMP, CLAMP).mul_(scale)
            log_sums.append(_put_(logits, columns - start, own).logsumexp(dim=1))
        log_sum = torch.stack(log_sums, dim=1).logsumexp(dim=1)
        ctx.save_for_backward(embeddings, centers, columns, inverse, cosines, log_sum, own, slope)
        ctx.scale = scale
        return log_sum, own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_log_sum: torch.Tensor, to_own: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        embeddings, centers, columns, inverse, cosines, log_sum, own, slope = ctx.saved_tensors
        need_embeddings, need_centers = ctx.needs_input_grad[:2]
        to_embeddings = torch.zeros_like(embeddings) if need_embeddings else None
        to_centers = torch.empty_like(centers) if need_centers else None
        with torch.autocast(embeddings.device.type, enabled=False):
            own_pull = ((own - log_sum).exp() * to_log_sum + to_own) * slope
            for start, stop in _chunks(cosines):
                cosine, inverse_here = cosines[:, start:stop], inverse[start:stop]
                # pull: the loss's gradient by the cosine
                pull = cosine.clamp(-CLAMP, CLAMP).mul_(ctx.scale).sub_(log_sum[:, None]).exp_().mul_(ctx.scale * to_log_sum[:, None])
                pull.mul_(cosine.abs() <= CLAMP)
                _put_(pull, columns - start, own_pull)
                # of center w: pullᵀ·z less its part along w, for the length of w does not count
                along = (pull * cosine).sum(dim=0).mul_(inverse_here.square()) if need_centers else None
                pull.mul_(inverse_here)
                if to_embeddings is not None:
                    to_embeddings.addmm_(pull, centers[start:stop])
                if to_centers is not None and along is not None:
                    torch.mm(pull.T, embeddings, out=to_centers[start:stop])
                    to_centers[start:stop].addcmul_(centers[start:stop], along[:, None], value=-1)
        return to_embeddings, to_centers, None, None, None, None


def _with_margin(cosines: torch.Tensor, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
    """cos(θ + m) from cos θ by the addition theorem, and its slope d cos(θ + m) / d cos θ; 0 where cos θ was clamped."""
    clamped = cosines.clamp(-CLAMP, CLAMP)
    sine = ((1 - clamped) * (1 + clamped)).sqrt()
    slope = math.cos(margin) + math.sin(margin) * clamped / sine
    return clamped * math.cos(margin) - sine * math.sin(margin), slope * (cosines.abs() <= CLAMP)


def _working(embeddings: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in fp32, or in double if one is."""
    dtype = torch.promote_types(torch.promote_types(embeddings.dtype, targets.dtype), torch.float32)
    return embeddings.to(dtype), targets.to(dtype)


def _finest(values: torch.Tensor) -> torch.Tensor:
    return values.double() if values.device.type != "mps" else values  # which has no double


def _chunks(logits: torch.Tensor) -> list[tuple[int, int]]:
    """(start, stop) of column ranges of [B, C]."""
    rows, columns = logits.shape
    count = min(MOST_CHUNKS, columns, math.ceil(rows * columns / CHUNK))
    return [(columns * part // count, columns * (part + 1) // count) for part in range(count)]


def _put_(block: torch.Tensor, columns: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """block[row, columns[row]] = values[row] for every row whose column is inside; no accelerator waits for it."""
    inside = ((columns >= 0) & (columns < block.shape[1]))[:, None]
    place = columns[:, None].where(inside, 0)
    return block.scatter_(1, place, values[:, None].where(inside, block.gather(1, place)))
