"""What losses need when a batch is spread over the processes of torchrun: rows gathered with their gradients, a sum over ranks.

Starting the processes, their model (DistributedDataParallel) and their data are the loop's. Without a process group there is one rank.

Shapes: b rows of this rank, equally many on every rank; B = b · ranks of the global batch; d embedding.

The convention: every rank has a loss of its own, the loss of the global batch is their mean, and DistributedDataParallel's averaging of
the gradients over ranks then gives the gradient of that mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import distributed

from assets.errors import UserError


def world_size() -> int:
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    return distributed.get_rank() if _grouped() else 0


def shard(count: int) -> range:
    """Which of `count` classes this rank holds: consecutive ones, the shares of two ranks differ by one at most."""
    ranks, own = world_size(), rank()
    if count < ranks:
        raise UserError(f"{count} classes cannot be spread over {ranks} processes. Start at most {count}.")
    return range(count * own // ranks, count * (own + 1) // ranks)


def gather(rows: torch.Tensor, *, gradient_factor: float = 1.0) -> torch.Tensor:
    """[b, …] of every rank as [B, …] in rank order, the same on all. The gradient flows to the rank that each row came from.

    It is the sum of what every rank's loss sends back (that is what averaging by DistributedDataParallel wants, see above), times
    `gradient_factor`. All ranks must take part in both passes.
    """
    if world_size() == 1:
        return rows
    if not rows.is_floating_point():
        return _all_gather(rows)
    return _Gather.apply(rows, gradient_factor)


def logsumexp_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """log Σ_ranks e^value, elementwise, the same on all ranks; nan where all are −inf.

    For what all ranks then compute alike, as one: backward gives each rank the gradient of its own part, without talking.
    """
    return values if world_size() == 1 else _LogSumExp.apply(values)


def clip_gradients_(replicated: Iterable[torch.Tensor], sharded: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
    """Scale gradients so that their joint norm is at most `max_norm`, as one process would that holds everything; the norm before.

    `replicated` parameters have the same gradient on every rank, of the `sharded` ones each rank has a part.
    """
    parts, whole = list(sharded), list(replicated)
    squares = _norm(parts).square()
    if world_size() > 1:
        distributed.all_reduce(squares)
    norm = (_norm(whole).square() + squares).sqrt()
    torch.nn.utils.clip_grads_with_norm_([*whole, *parts], max_norm, norm)
    return norm


def _norm(parameters: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _all_gather(rows: torch.Tensor) -> torch.Tensor:
    everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
    distributed.all_gather(everyone, rows.contiguous())
    return torch.cat(everyone)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, gradient_factor: float) -> torch.Tensor:
        ctx.own = slice(rank() * len(rows), (rank() + 1) * len(rows))
        ctx.gradient_factor = gradient_factor
        return _all_gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.own] * ctx.gradient_factor, None


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        largest = values.clone()
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        total = (values - largest).exp()
        distributed.all_reduce(total)
        result = largest + total.log()
        ctx.save_for_backward((values - result).exp())
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (share,) = ctx.saved_tensors
        return gradient * share
