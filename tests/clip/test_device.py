"""The settings device and precision end in what torch understands, or in a message."""

import pytest
import torch

from assets.clip.device import autocast, resolve_device
from assets.errors import UserError


def test_auto_takes_what_there_is():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device("auto") == best
    assert resolve_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_named_with_a_way_on():
    with pytest.raises(UserError, match=r"'cuda:99' is not on this machine.*device: auto or cpu"):
        resolve_device("cuda:99")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_matrix_products(precision: str, dtype: torch.dtype):
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
