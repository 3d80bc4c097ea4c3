"""Batch norm over the global batch when it is spread over processes. (torch's own SyncBatchNorm runs on cuda alone.)"""

from __future__ import annotations

from functools import partial

import torch
from timm.layers import BatchNormAct2d
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm

from assets.training.distributed import world_size


def share_batch_statistics(module: torch.nn.Module) -> None:
    """Make every batch norm in `module` normalise by the mean and variance of all ranks' rows, as one process with all rows would.

    In training mode only; names and state stay as they are. Each rank must have as many rows. Does nothing for one process.
    """
    if world_size() > 1:
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.forward = partial(_forward, part)  # type: ignore[method-assign]


def _forward(norm: _BatchNorm, rows: torch.Tensor) -> torch.Tensor:
    """rows [b, channels, …]."""
    if not norm.training:
        return type(norm).forward(norm, rows)
    values, others = rows.float(), [axis for axis in range(rows.ndim) if axis != 1]
    shape = [1, -1] + [1] * (rows.ndim - 2)
    mean = _Mean.apply(values.mean(dim=others))
    centered = values - mean.view(shape)
    variance = _Mean.apply(centered.square().mean(dim=others))
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            count = values.numel() // values.shape[1] * world_size()
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(variance * count / max(1, count - 1), momentum)
    result = centered * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        result = result * norm.weight.view(shape) + norm.bias.view(shape)
    result = result.to(rows.dtype)
    # timm's norms have their activation inside
    return norm.act(norm.drop(result)) if isinstance(norm, BatchNormAct2d) else result


class _Mean(torch.autograd.Function):
    """The mean over ranks, whose gradient is the mean of what every rank's loss sends back: see `distributed`'s convention."""

    @staticmethod
    def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total / world_size()
