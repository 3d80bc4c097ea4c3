"""The searchable library: one LanceDB row and one vector per image.

`from assets.search_table import embed, open_table, search` finds each function in its module: `search` finds pictures, `embed` gives the
vectors of queries, `open_table` the table itself. Publishing imports neither, so that a change of the queries publishes nothing again.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME_OF = {"embed": "query", "open_table": "table", "search": "query"}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
