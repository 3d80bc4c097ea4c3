"""Read an Iconify icon set and draw its icons. Which icon shows what is the caller's concern.

The format: https://iconify.design/docs/types/iconify-json.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class IconSet:
    """One package of icons; an alias names its parent icon."""

    icons: dict[str, dict[str, Any]]
    aliases: dict[str, dict[str, Any]]
    width: float  # of an icon that names none
    height: float

    def __contains__(self, name: str) -> bool:
        return name in self.icons or name in self.aliases


def read_icons(package: Path) -> IconSet:
    content = _read(package / "icons.json")
    return IconSet(content["icons"], content.get("aliases", {}), content.get("width", 16), content.get("height", 16))


def read_codes(package: Path) -> dict[str, str]:
    """Code point sequence (lower-case hex, joined by "-", without fe0f) → icon name. Empty for sets that carry none."""
    return _read(package / "chars.json")


def read_info(package: Path) -> tuple[str, str]:
    """The licence's SPDX identifier, and whom to name: "<set> by <author>, <address>"."""
    info = _read(package / "info.json")
    return info["license"]["spdx"], f"{info['name']} by {info['author']['name']}, {info['author']['url']}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def svg(icons: IconSet, name: str, size: int) -> str:
    """The icon as an SVG document of size × size pixels; an icon that is not square is centred."""
    alias = icons.aliases.get(name, {})
    icon = icons.icons[alias.get("parent", name)] | {key: value for key, value in alias.items() if key != "parent"}
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", icons.width), icon.get("height", icons.height)
    body = icon["body"]
    if icon.get("hFlip"):
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{size}" height="{size}"'
        f' viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def render(document: str) -> bytes:
    """An SVG document as PNG, transparent where nothing is drawn. System fonts are left out: they differ between machines."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=document, skip_system_fonts=True))
