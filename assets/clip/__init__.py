"""CLIP models as the stages share them: load, save, decode a picture, encode images and texts. Training is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assets.clip.model import load_clip

__all__ = ["load_clip"]


def __getattr__(name: str) -> Any:
    # on demand: decoding a picture must not wait for torch
    if name == "load_clip":
        from assets.clip.model import load_clip

        return load_clip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
