"""Random views of a batch of pictures, drawn and applied on tensors: one affine warp and one colour matrix an image.

Shapes: B images, S side as stored, R side as trained.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn.functional import affine_grid, grid_sample

MARGIN = 1.125  # pictures are stored this much larger than they are trained at, so that a shifted crop stays inside (paper, section 4)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


Drawn = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # warps [B, 2, 3], colour matrices [B, 3, 3], brightness [B, 3, 1]


def augment(pixels: torch.Tensor, size: int, *, generator: torch.Generator, **how: Any) -> torch.Tensor:
    """A view of each picture: uint8 [B, 3, S, S] → float32 [B, 3, R, R] in [0, 1]. `how`: the settings of `draw_views`."""
    return apply_views(pixels, size, draw_views(len(pixels), pixels.shape[-1] / size, generator=generator, **how))


def draw_views(
    count: int,
    enlarged: float,
    *,
    rotation_degrees: float,
    scale: list[float],
    shift: float,
    flip: bool,
    color_mixing: float,
    grey: float,
    generator: torch.Generator,
) -> Drawn:
    """Views of `count` pictures stored `enlarged` (S / R) times as large as they are shown; on the CPU, from `generator` alone.

    Rotation up to ±rotation_degrees, zoom log-uniform in `scale`, shift up to ±shift of the side, mirrored half of the time if `flip`;
    channels mixed by a random matrix of strength `color_mixing`, a share `grey` of the images blended with their luma.
    """

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    angle = uniform(-1, 1) * math.radians(rotation_degrees)
    zoom = torch.exp(uniform(math.log(scale[0]), math.log(scale[1]))) * enlarged
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if flip else torch.ones(count)
    moved = uniform(-1, 1, 2) * 2 * shift
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    warp = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, moved[:, 0]], dim=1),
            torch.stack([sine * mirror, cosine, moved[:, 1]], dim=1),
        ],
        dim=1,
    )
    mixing = torch.eye(3) + color_mixing * uniform(-0.5, 0.5, 3, 3)
    share = torch.where(uniform(0, 1) < grey, uniform(0, 1), torch.zeros(count))[:, None, None]
    colors = (1 - share) * mixing + share * torch.tensor(LUMA).expand(3, 3)
    brightness = color_mixing * uniform(-0.25, 0.25, 3, 1)
    return warp, colors, brightness


def apply_views(pixels: torch.Tensor, size: int, drawn: Drawn) -> torch.Tensor:
    """uint8 [B, 3, S, S] → float32 [B, 3, R, R] in [0, 1], on the pixels' device."""
    warp, colors, brightness = (each.to(pixels.device) for each in drawn)
    grid = affine_grid(warp, [len(pixels), 3, size, size], align_corners=False)
    warped = grid_sample(pixels.float() / 255, grid, mode="bilinear", padding_mode="border", align_corners=False)
    mixed = torch.baddbmm(brightness, colors, warped.flatten(2))
    return mixed.clamp_(0, 1).unflatten(2, (size, size))


def stored_size(size: int) -> int:
    """S, the side in pixels at which a picture trained at `size` is kept."""
    return round(size * MARGIN)
