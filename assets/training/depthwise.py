"""Depthwise convolutions that train faster on a CPU: oneDNN takes 16 to 60 times too long for one gradient that small pictures need.

It is the gradient of weights whose kernel is wider than the convolution's output: 5 × 5 on 4 × 4 pixels or fewer, 3 × 3 on 2 × 2, as in
the last layers of an EfficientNet that sees 64 × 64. A matrix product for each channel gives the same sums. `python -m
tests.benchmarks.depthwise` has the ratio. Shapes: N pictures, C channels, I × I pixels in, O × O out, K × K kernel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import conv2d, one_hot


def quicken_depthwise(module: torch.nn.Module) -> None:
    """Let the depthwise convolutions in `module` compute that gradient by a matrix product, on a CPU. Nothing else of them changes."""
    for each in module.modules():
        if type(each) is torch.nn.Conv2d and _is_plain_depthwise(each):
            each.__class__ = _Depthwise


def _is_plain_depthwise(convolution: torch.nn.Conv2d) -> bool:
    square = all(len(set(each)) == 1 for each in (convolution.kernel_size, convolution.stride, convolution.dilation))
    padded = not isinstance(convolution.padding, str) and len(set(convolution.padding)) == 1 and convolution.padding_mode == "zeros"
    channels = {convolution.in_channels, convolution.out_channels, convolution.groups}
    return square and padded and convolution.dilation[0] == 1 and len(channels) == 1 and convolution.bias is None


class _Depthwise(torch.nn.Conv2d):
    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:  # noqa: A002
        stride, padding, kernel = self.stride[0], int(self.padding[0]), self.kernel_size[0]
        outputs = [_output(side, kernel, stride, padding) for side in input.shape[2:]]
        slow = input.device.type == "cpu" and max(outputs) < kernel and not torch.is_autocast_enabled("cpu")
        if not slow or not (torch.is_grad_enabled() and weight.requires_grad):
            return super()._conv_forward(input, weight, bias)
        found: torch.Tensor = _Convolved.apply(input, weight, stride, padding)
        return found


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return conv2d(x, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_x = None
        if ctx.needs_input_grad[0]:
            stride, padding, wanted = [ctx.stride] * 2, [ctx.padding] * 2, [True, False, False]
            of_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), wanted
            )[0]
        of_weight = _of_weight(x, gradient, weight.shape[-1], ctx.stride, ctx.padding)
        # laid out as the weight: several processes join their gradients where they lie
        return of_x, torch.empty_like(weight).copy_(of_weight), None, None


def _of_weight(x: torch.Tensor, gradient: torch.Tensor, kernel: int, stride: int, padding: int) -> torch.Tensor:
    """[C, 1, K, K] of [N, C, I, I] and [N, C, O, O]: the product of every pixel in with every pixel out, summed where they met."""
    met = _places(*x.shape[2:], kernel, stride, padding).to(x.dtype)
    products = torch.bmm(_by_channel(x), _by_channel(gradient).transpose(1, 2))  # [C, I·I, O·O]
    return (products.flatten(1) @ met).reshape(-1, 1, kernel, kernel)


def _by_channel(pictures: torch.Tensor) -> torch.Tensor:
    """[C, pixels, N], by one transposition of the channels-last memory."""
    count, channels, height, width = pictures.shape
    flat = pictures.permute(0, 2, 3, 1).reshape(count, -1).t().contiguous()
    return flat.reshape(height * width, channels, count).transpose(0, 1)


@lru_cache(maxsize=64)
def _places(height: int, width: int, kernel: int, stride: int, padding: int) -> torch.Tensor:
    """[I·I·O·O, K·K]: 1 where the kernel's value multiplies this pixel for that output, else 0."""

    def offsets(side: int) -> torch.Tensor:
        """[I, O]: which of the kernel's values it is, along one side."""
        return torch.arange(side)[:, None] - (torch.arange(_output(side, kernel, stride, padding)) * stride - padding)

    down, across = offsets(height)[:, None, :, None], offsets(width)[None, :, None, :]
    inside = (down >= 0) & (down < kernel) & (across >= 0) & (across < kernel)
    place = torch.where(inside, down * kernel + across, kernel * kernel).flatten()
    return one_hot(place, kernel * kernel + 1)[:, :-1]


def _output(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1
