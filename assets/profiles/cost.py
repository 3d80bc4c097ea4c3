"""What training a tower costs, counted on a model without weights (torch's meta device): parameters, memory, operations.

Shapes: B inputs of one forward pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

LAYER = re.compile(r"(^|\.)(resblocks|blocks|layers?|block|layer\d)\.\d+$")
FULL = 4  # bytes of a number in single precision
ADAMW = 2 * FULL  # bytes of a trained parameter's two moments


@dataclass(frozen=True)
class Cost:
    trained: int  # parameters
    locked: int  # parameters, of both towers
    state_bytes: int  # weights, gradients, AdamW's moments, the moving average
    activation_bytes: int  # kept from the forward to the backward pass
    step_flops: int  # forward and backward


def training_cost(
    model: torch.nn.Module, encode: Callable[[], torch.Tensor], *, batch_size: int, inputs: int, half: bool, checkpointing: bool, ema: bool
) -> Cost:
    """Cost of a step of `batch_size`, from `encode`, the forward pass of B = `inputs`, which is counted.

    Weights, gradients and moments are in single precision, activations in half where `half`. An attention's weights are not counted among
    activations: fused kernels compute them again. With `checkpointing` each layer's input is kept and one layer's activations at a time,
    and the forward pass counts twice. The loss, class centers, and what the allocator wastes come on top.
    """
    parameters = list(model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in parameters)
    weights = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept: dict[int, int] = {}
    layer_inputs: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        attention = tensor.ndim > 2 and tensor.shape[-1] == tensor.shape[-2]
        if storage._cdata not in weights and not attention:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    def enter(_: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        layer_inputs.extend(argument.nbytes for argument in arguments[:1] if isinstance(argument, torch.Tensor))

    hooks = [module.register_forward_pre_hook(enter) for name, module in model.named_modules() if LAYER.search(name)]
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                encoded = encode()
            forward = counter.get_total_flops()
            encoded.sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    activations, flops = sum(kept.values()), counter.get_total_flops()
    if checkpointing and layer_inputs:
        activations = sum(layer_inputs) + activations // len(layer_inputs)
        flops += forward
    return Cost(
        trained=trained,
        locked=total - trained,
        state_bytes=total * FULL + trained * (FULL + ADAMW + (FULL if ema else 0)),
        activation_bytes=activations // (2 if half else 1) * batch_size // inputs,
        step_flops=flops * batch_size // inputs,
    )
