"""The demo's settings, whatever params.yaml holds: what README advises (another profile, pictures of one's own) must not fail a test."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from assets.params import Params
from assets.profiles.overlay import with_profile

PARAMS_FILE = Path(__file__).resolve().parent.parent / "params.yaml"


@cache  # reading YAML in Python takes a fifth of a second, and most tests ask for it
def demo_text() -> str:
    """params.yaml of the checkout with the demo's profile put over it."""
    return with_profile("demo", PARAMS_FILE)[0]


@cache
def _demo_settings() -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(demo_text())


def demo_settings() -> dict[str, Any]:
    """The same as written, a new copy at each call."""
    return deepcopy(_demo_settings())


def demo_params() -> Params:
    return with_profile("demo", PARAMS_FILE)[1]
