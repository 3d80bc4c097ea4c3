"""The quick gradient of depthwise convolutions is the convolution's own gradient."""

from __future__ import annotations

import copy

import pytest
import timm
import torch

from assets.training.depthwise import quicken_depthwise


def _convolution(kernel: int, stride: int, channels: int = 6, **changes: object) -> torch.nn.Conv2d:
    torch.manual_seed(0)
    plain = {"stride": stride, "padding": kernel // 2, "groups": channels, "bias": False}
    return torch.nn.Conv2d(channels, channels, kernel, **(plain | changes)).double()


def _gradients(convolution: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    out = convolution(x)
    (out * torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()).sum().backward()
    return [out.detach(), x.grad, *(each.grad for each in convolution.parameters())]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width"),
    [(5, 1, 4, 4), (5, 1, 2, 2), (5, 2, 4, 4), (5, 2, 7, 7), (3, 1, 2, 2), (3, 2, 3, 3), (3, 1, 1, 1), (5, 1, 4, 3), (7, 1, 4, 4)],
)
def test_the_gradients_are_those_of_the_convolution(kernel, stride, height, width, layout):
    plain = _convolution(kernel, stride)
    quick = copy.deepcopy(plain)
    quicken_depthwise(quick)
    assert type(quick) is not torch.nn.Conv2d
    x = torch.randn(5, 6, height, width, dtype=torch.float64).contiguous(memory_format=layout)
    for convolution in (plain, quick):
        convolution.to(memory_format=layout)
    for mine, its in zip(_gradients(quick, x), _gradients(plain, x), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)
    assert quick.weight.grad.stride() == quick.weight.stride(), "processes that share a batch join gradients by the weight's layout"


def test_numerical_gradients():
    quick = _convolution(5, 2, channels=2)
    quicken_depthwise(quick)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: torch.func.functional_call(quick, {"weight": weight}, (x,)), (x, quick.weight))


@pytest.mark.parametrize(
    "convolution",
    [
        _convolution(3, 1, groups=1),
        _convolution(3, 1, groups=3),
        _convolution(3, 1, dilation=2),
        _convolution(3, 1, padding_mode="reflect"),
        _convolution(3, 1, padding="same"),
        _convolution(3, 1, padding=(1, 0)),
        _convolution(3, 1, bias=True),
    ],
    ids=["dense", "grouped", "dilated", "reflecting", "same", "uneven", "biased"],
)
def test_other_convolutions_stay_as_they_are(convolution):
    quicken_depthwise(convolution)
    assert type(convolution) is torch.nn.Conv2d


def test_a_tower_gives_the_same_and_learns_the_same():
    torch.manual_seed(0)
    plain = timm.create_model("efficientnet_lite0", num_classes=0).train()
    quick = copy.deepcopy(plain)
    quicken_depthwise(quick)
    x = torch.randn(8, 3, 64, 64)
    (mine, *my_gradients), (its, *its_gradients) = _gradients(quick, x), _gradients(plain, x)
    assert torch.equal(mine, its)
    for one, other in zip(my_gradients, its_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
    assert quick.state_dict().keys() == plain.state_dict().keys()


def test_a_locked_convolution_passes_the_gradient_on():
    quick = _convolution(5, 1)
    quicken_depthwise(quick)
    quick.requires_grad_(False)
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    quick(x).sum().backward()
    assert x.grad is not None and quick.weight.grad is None
