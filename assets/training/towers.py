"""How a tower runs while it trains: activations recomputed, patches left out, compiled. Which of its parameters train is not seen here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import open_clip
import torch
from timm.layers import PatchDropout as TimmPatchDropout

from assets.clip.model import Clip, text_tower
from assets.errors import UserError


def checkpoint_image_tower(model: Clip) -> None:
    """Compute the image tower's activations again in the backward pass instead of keeping them (arXiv 1604.06174); same gradients."""
    visual = model.visual
    if isinstance(visual, open_clip.modified_resnet.ModifiedResNet):  # open_clip accepts the call and does nothing
        raise UserError("gradient_checkpointing: open_clip's ResNets have none. Set it to false.")
    if isinstance(visual, open_clip.timm_model.TimmModel):  # open_clip would go on without it
        try:
            visual.trunk.set_grad_checkpointing(True)
        except (AttributeError, AssertionError) as error:
            raise UserError(f"gradient_checkpointing: this image tower has none ({error}). Set it to false.") from None
    else:
        visual.set_grad_checkpointing(True)


def checkpoint_text_tower(model: Clip) -> None:
    """The same for the text tower."""
    tower = text_tower(model)
    if tower is None:  # the original CLIP class has the text tower's parts at its top
        model.transformer.grad_checkpointing = True
    else:
        tower.set_grad_checkpointing(True)


def drop_patches(model: Clip, share: float) -> None:
    """Leave out a random `share` of each picture's patches in training mode (arXiv 2212.00794); nothing changes for share 0."""
    if not share:
        return
    visual = model.visual
    trunk: Any = getattr(visual, "trunk", None)
    if hasattr(visual, "patch_dropout"):
        visual.patch_dropout = open_clip.transformer.PatchDropout(share)
    elif hasattr(trunk, "patch_drop"):
        trunk.patch_drop = TimmPatchDropout(share, num_prefix_tokens=trunk.num_prefix_tokens)
    else:
        raise UserError(f"patch_dropout: {share}, but this image tower is no ViT and has no patches to leave out. Set it to 0.0.")


def compiled(function: Callable[..., torch.Tensor], device: str) -> Callable[..., torch.Tensor]:
    """`torch.compile` of a tower's encode function, tried on something small first: without a compiler it says so before any work."""
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
