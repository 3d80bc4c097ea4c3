"""The text tower's last step, from its own width into the joint space: trained alone, what comes before it is encoded once and reused.

Shapes: T texts, w width of the text tower, d embedding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from assets.clip.encoding import embedding_size
from assets.clip.model import Clip, is_hugging_face, text_tower

NAMES = ("text_projection", "text.text_projection", "text.proj")  # in the models of open_clip's classes


def is_text_projection(name: str) -> bool:
    """Whether a parameter of that name in the model is the projection's."""
    return name.startswith(tuple(f"{own}." for own in NAMES)) or name in NAMES


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
    """Features [T, w] to the joint space [T, d], with gradients; not normalised. A tower without a projection ends there already."""
    owner, name, _ = _place(model)
    projection = getattr(owner, name)
    if projection is None:
        return features
    return projection(features) if isinstance(projection, torch.nn.Module) else features @ projection


def projection_width(model: Clip) -> int:
    """w, the size of what the projection takes; d where there is none."""
    owner, name, _ = _place(model)
    projection = getattr(owner, name)
    if isinstance(projection, torch.nn.Module):
        first = next(projection.parameters(), None)
        return int(first.shape[1]) if first is not None else embedding_size(model)
    return int(projection.shape[0]) if projection is not None else embedding_size(model)


def _place(model: Clip) -> tuple[Any, str, torch.nn.Module | None]:
    """(the module that holds the projection, its name there, what stands in for none)."""
    tower = text_tower(model)
    if tower is None:
        return model, "text_projection", None
    return (tower, "proj", torch.nn.Identity()) if is_hugging_face(tower) else (tower, "text_projection", None)
