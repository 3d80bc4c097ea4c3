"""What the processes of a run exchange: rows gathered with their gradients, sums over ranks, values that the first rank makes for all.

`processes` starts them, the loop wraps their model (DistributedDataParallel). Without a process group there is one rank.

Shapes: b rows of this rank, equally many on every rank; B = b · ranks of the global batch; d embedding.

The convention: every rank has a loss of its own, the loss of the global batch is their mean, and DistributedDataParallel's averaging of
the gradients over ranks then gives the gradient of that mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

from assets.errors import UserError

T = TypeVar("T")


def world_size() -> int:
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    return distributed.get_rank() if _grouped() else 0


def own_rows(count: int) -> slice:
    """Which rows of a global batch of `count` this rank has: equally many on every rank; the rows left over are on none."""
    own = count // world_size()
    if not own:
        raise UserError(f"a batch of {count} images cannot be spread over {world_size()} processes. Start at most {count}.")
    return slice(rank() * own, (rank() + 1) * own)


def shard(count: int) -> range:
    """Which of `count` classes this rank holds: consecutive ones. The shares of two ranks differ by one class at most."""
    if count < world_size():
        raise UserError(f"{count} classes cannot be spread over {world_size()} processes. Start at most {count}.")
    return _shards(count)[rank()]


def whole(own: torch.Tensor) -> torch.Tensor:
    """On the first rank all rows [C, …], joined from each rank's `shard`; the other ranks keep their own. Without gradient."""
    if world_size() == 1:
        return own
    count = torch.tensor(len(own))
    distributed.all_reduce(count)
    sizes = [len(each) for each in _shards(int(count))]
    padded = torch.cat([own, own.new_zeros(max(sizes) - len(own), *own.shape[1:])])
    everyone = [torch.empty_like(padded) for _ in sizes] if rank() == 0 else None
    distributed.gather(padded, everyone)
    return own if everyone is None else torch.cat([part[:size] for part, size in zip(everyone, sizes, strict=True)])


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives on the first rank, on all; the others wait for it."""
    made = [make() if rank() == 0 else None]
    if world_size() > 1:
        distributed.broadcast_object_list(made)
    result: Any = made[0]
    return result


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first rank goes through the block alone; the others after it, to find what it has made."""
    if world_size() > 1 and rank() > 0:
        distributed.barrier()
    yield
    if world_size() > 1 and rank() == 0:
        distributed.barrier()


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The same on all ranks; without gradient."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / world_size()


def gather(rows: torch.Tensor, *, gradient_factor: float = 1.0) -> torch.Tensor:
    """[b, …] of every rank as [B, …] in rank order, the same on all. The gradient flows to the rank that each row came from.

    It is the sum of what every rank's loss sends back, as averaging by DistributedDataParallel needs it (see above), times
    `gradient_factor`. All ranks must take part in both passes.
    """
    if world_size() == 1:
        return rows
    if not rows.is_floating_point():
        return _all_gather(rows)
    return _Gather.apply(rows, gradient_factor)


def logsumexp_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """log Σ_ranks e^value, elementwise, the same on all ranks; nan where all are −inf.

    Use it where all ranks then compute the same: backward gives each rank the gradient of its own part without an exchange.
    """
    return values if world_size() == 1 else _LogSumExp.apply(values)


def clip_gradients_(replicated: Iterable[torch.Tensor], sharded: Iterable[torch.Tensor], max_norm: float | None) -> torch.Tensor:
    """Scale gradients so that their joint norm is at most `max_norm`, as one process would that holds everything; the norm before.

    None: they stay as they are.

    `replicated` parameters have the same gradient on every rank, of the `sharded` ones each rank has a part. Sparse ones are coalesced.
    """
    parts, copies = list(sharded), list(replicated)
    if world_size() == 1:
        norm = _norm([*copies, *parts])
    else:
        squares = _norm(parts).to(copies[0].device).square() if copies else _norm(parts).square()
        distributed.all_reduce(squares)
        norm = (_norm(copies).square() + squares).sqrt()
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_([*copies, *parts], max_norm, norm)
    return norm


def _norm(parameters: list[torch.Tensor]) -> torch.Tensor:
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            gradients.append(parameter.grad.values())
        elif parameter.grad is not None:
            gradients.append(parameter.grad)
    return torch.nn.utils.get_total_norm(gradients)


def _shards(count: int) -> list[range]:
    ranks = world_size()
    return [range(count * number // ranks, count * (number + 1) // ranks) for number in range(ranks)]


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
