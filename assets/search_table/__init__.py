"""The searchable library: one LanceDB row and one vector an image. `search` finds pictures, `open_table` is the table itself."""

from assets.search_table.query import search
from assets.search_table.table import open_table

__all__ = ["open_table", "search"]
