"""How a tower runs while it trains: patches left out, compiled. Which of its parameters train is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from assets.clip.image_towers import image_tower_of
from assets.clip.model import Clip
from assets.clip.text_towers import text_tower_of
from assets.errors import UserError


def checkpoint_image_tower(model: Clip) -> None:
    """Compute the image tower's activations again in the backward pass instead of keeping them (arXiv 1604.06174); same gradients.

    UserError where the tower cannot.
    """
    image_tower_of(model).checkpoint()


def checkpoint_text_tower(model: Clip) -> None:
    """The same for the text tower."""
    text_tower_of(model).checkpoint()


def drop_patches(model: Clip, share: float) -> None:
    """Leave out a random `share` of each picture's patches in training mode (arXiv 2212.00794); nothing changes for share 0.

    UserError where the tower has no patches.
    """
    if share:
        image_tower_of(model).drop_patches(share)


def compiled(function: Callable[..., torch.Tensor], device: str) -> Callable[..., torch.Tensor]:
    """`torch.compile` of a tower's encode function, tried on something small first: without a compiler it fails before any work."""
    try:
        torch.compile(_probe)(torch.zeros(8, device=device))
    except Exception as error:  # compilers and backends fail in as many types as there are of them
        raise UserError(
            f"compile: torch.compile does not work here ({_first_line(error)}). It needs a C++ compiler on a CPU (g++ or clang on the"
            " PATH, or CXX set) and triton on cuda; install one or set compile: false."
        ) from None
    wrapped: Any = torch.compile(function)
    return wrapped


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).sin()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
