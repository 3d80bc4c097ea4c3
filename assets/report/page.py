"""The templates of the page and of its Markdown, and how text is written into them. The sections' modules make what is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

TEMPLATE, STYLE, SCRIPT, MARKDOWN = "template.html.jinja", "page.css", "page.js", "template.md.jinja"
CURATION = "curation.html.jinja"
LICENSE_PAGES = {  # SPDX identifier → where its text is read
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "MIT": "https://opensource.org/license/mit",
}


def linked(text: str) -> Markup:
    """The text with its web addresses as links."""
    parts = re.split(r"(https?://[^\s,;<>\"')]+)", text)
    return Markup("").join(
        Markup('<a href="{0}" rel="noopener noreferrer">{0}</a>').format(part) if position % 2 else escape(part)
        for position, part in enumerate(parts)
    )


def licence(identifier: str) -> Markup:
    """The licence's name, a link to its text where that is known."""
    address = LICENSE_PAGES.get(identifier)
    return Markup('<a href="{}" rel="noopener noreferrer license">{}</a>').format(address, identifier) if address else linked(identifier)


def cell(text: Any) -> str:
    """Text for a cell of a Markdown table, shown as it is."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", str(text)).replace("\n", " ")


def render(**context: Any) -> str:
    files = Path(__file__).parent
    environment = _environment(autoescape=True)
    environment.filters["linked"] = linked
    environment.filters["licence"] = licence
    parts = {"style": Markup((files / STYLE).read_text(encoding="utf-8")), "script": Markup((files / SCRIPT).read_text(encoding="utf-8"))}
    return environment.get_template(TEMPLATE).render(**parts, **context)


def render_curation(**context: Any) -> str:
    """The page about the data alone: it has the same style and no script."""
    environment = _environment(autoescape=True)
    environment.filters["linked"] = linked
    environment.filters["licence"] = licence
    style = Markup((Path(__file__).parent / STYLE).read_text(encoding="utf-8"))
    return environment.get_template(CURATION).render(style=style, **context)


def render_markdown(**context: Any) -> str:
    environment = _environment(autoescape=False)
    environment.filters["cell"] = cell
    return environment.get_template(MARKDOWN).render(**context)


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment
