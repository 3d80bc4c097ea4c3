"""The text tower's last step, from its own width into the joint space: trained alone, what comes before it is encoded once and reused.

Shapes: T texts, w width of the text tower, d embedding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from assets.clip.model import Clip
from assets.clip.text_towers import KINDS, text_tower_of


def is_text_projection(name: str) -> bool:
    """Whether a parameter of that name in a model is the projection's."""
    return any(kind.is_projection(name) for kind in KINDS)


@contextlib.contextmanager
def without_text_projection(model: Clip) -> Iterator[None]:
    """While it lasts, the model's encode_text gives the features [T, w] that the projection would get."""
    owner, name = _place(model)
    projection = getattr(owner, name)
    setattr(owner, name, text_tower_of(model).no_projection())
    try:
        yield
    finally:
        setattr(owner, name, projection)


def project(model: Clip, features: torch.Tensor) -> torch.Tensor:
    """Features [T, w] to the joint space [T, d], with gradients; not normalised. A tower without a projection ends there already."""
    projection = getattr(*_place(model))
    if projection is None:
        return features
    return projection(features) if isinstance(projection, torch.nn.Module) else features @ projection


def projection_width(model: Clip) -> int:
    """w, the size of what the projection takes; d where there is none."""
    projection = getattr(*_place(model))
    if isinstance(projection, torch.nn.Module):
        first = next(projection.parameters(), None)
        return int(first.shape[1]) if first is not None else text_tower_of(model).dimension
    return int(projection.shape[0]) if projection is not None else text_tower_of(model).dimension


def _place(model: Clip) -> tuple[Any, str]:
    """(the module that holds the projection, its name there)."""
    tower = text_tower_of(model)
    return tower.projection_owner, tower.projection_name.rpartition(".")[2]
