"""python -m assets.search_table "a red heart" -k 10: search the published table from the shell."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from assets.errors import UserError
from assets.search_table.query import search


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m assets.search_table", description="Find pictures by words or by a picture.")
    parser.add_argument("text", nargs="?", help="what to look for")
    parser.add_argument("--image", type=Path, metavar="PICTURE", help="look for what resembles this picture file, instead of words")
    parser.add_argument("-k", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--where", metavar="FILTER", help="an SQL condition over the table's columns: \"source = 'noto' and width >= 64\"")
    given = parser.parse_args(arguments)
    if (given.text is None) == (given.image is None):
        parser.error("give either words or --image PICTURE")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        show(search(given.text if given.image is None else given.image, given.k, given.where))
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    if given.text is not None and Path(given.text).suffix and Path(given.text).is_file():
        print(f"The words {given.text!r} were looked for. For what resembles that file: --image {given.text!r}", file=sys.stderr)
    return 0


def show(hits: pa.Table) -> None:
    table = Table("rank", "distance", "class_name", "caption", "source", "id", box=None)
    columns = hits.select(["_distance", "class_name", "caption", "source", "id"]).to_pylist()
    for rank, hit in enumerate(columns, start=1):
        table.add_row(str(rank), f"{hit['_distance']:.4f}", *(hit[name] or "" for name in ("class_name", "caption", "source", "id")))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:  # whoever reads a pipe wants whole lines
        console.width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
