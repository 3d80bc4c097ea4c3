"""The text tower's last step, from its own width into the joint space: trained alone, what comes before it is encoded once and reused.

Shapes: T texts, w width of the text tower, d embedding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from assets.clip.model import Clip, is_hugging_face, text_tower


@contextlib.contextmanager
def without_text_projection(model: Clip) -> Iterator[None]:
    """While it lasts, the model's encode_text gives the features [T, w] that the projection would get."""
    owner, name, nothing = _place(model)
    projection = getattr(owner, name)
    setattr(owner, name, nothing)
    try:
        yield
    finally:
        setattr(owner, name, projection)


def project(model: Clip, features: torch.Tensor) -> torch.Tensor:
    """Features [T, w] to the joint space [T, d], with gradients; not normalised."""
    owner, name, _ = _place(model)
    projection = getattr(owner, name)
    return projection(features) if isinstance(projection, torch.nn.Module) else features @ projection


def projection_width(model: Clip) -> int:
    """w, the size of what the projection takes."""
    owner, name, _ = _place(model)
    projection = getattr(owner, name)
    return int(next(projection.parameters()).shape[1] if isinstance(projection, torch.nn.Module) else projection.shape[0])


def _place(model: Clip) -> tuple[Any, str, torch.nn.Module | None]:
    """(the module that holds the projection, its name there, what stands in for none)."""
    tower = text_tower(model)
    if tower is None:
        return model, "text_projection", None
    return (tower, "proj", torch.nn.Identity()) if is_hugging_face(tower) else (tower, "text_projection", None)
