"""CLIP models as the stages share them: load, save, encode images and texts. Training is elsewhere.

`from assets.clip import load_clip` loads torch on demand. The code of the stages imports the modules themselves.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    load_clip: Callable[..., tuple[Any, Any, Any]]

__all__ = ["load_clip"]


def __getattr__(name: str) -> Any:
    if name == "load_clip":
        return importlib.import_module("assets.clip.model").load_clip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
