"""python -m assets.search_table "a red heart" -k 10: search the published table from the shell."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from assets.errors import UserError
from assets.search_table.cutoff import NAMES
from assets.search_table.query import WAYS, search


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m assets.search_table", description="Find pictures by words or by a picture.")
    parser.add_argument("text", nargs="?", help="what to look for")
    parser.add_argument("--image", type=Path, metavar="PICTURE", help="look for what resembles this picture file")
    parser.add_argument("--like", metavar="ID", help="look for more like this picture of the table")
    parser.add_argument("--less", action="append", default=[], metavar="TEXT", help="lead away from these words (may be repeated)")
    parser.add_argument("-k", type=int, default=10, help="how many (default: 10)")
    parser.add_argument("--offset", type=int, default=0, help="skip so many hits")
    parser.add_argument("--where", metavar="FILTER", help="a condition over the table's columns: \"source = 'noto' and width >= 64\"")
    parser.add_argument("--by", choices=WAYS, default="vector", help="text: the words of the captions; hybrid: both rankings joined")
    parser.add_argument("--cutoff", type=_cutoff, help="leave out hits below this cosine, or below `same` or `related`")
    parser.add_argument("--fold", action="store_true", help="fold nearly identical hits into one")
    parser.add_argument("--version", metavar="VERSION", help="an earlier publish: a tag or number of `make versions`")
    given = parser.parse_args(arguments)
    if given.text is None and given.image is None and given.like is None:
        parser.error("give words, --image PICTURE or --like ID")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    query: list[Any] = [each for each in (given.text, given.image) if each is not None] + [(words, -1.0) for words in given.less]
    try:
        show(
            search(
                query,
                given.k,
                given.where,
                like=given.like,
                by=given.by,
                cutoff=given.cutoff,
                fold=given.fold,
                offset=given.offset,
                version=given.version,
            )
        )
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    if given.text is not None and Path(given.text).suffix and Path(given.text).is_file():
        print(f"The words {given.text!r} were looked for. For what resembles that file: --image {given.text!r}", file=sys.stderr)
    return 0


def _cutoff(text: str) -> str | float:
    try:
        return text if text in NAMES else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"given {text!r}; it must be {' or '.join(NAMES)}, or a cosine from -1 to 1") from None


def _shown(text: str | None) -> str:
    """Without control characters, which would speak to the terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text or "")


def show(hits: pa.Table) -> None:
    measured, name = ("_distance", "distance") if "_distance" in hits.column_names else ("_score", "score")
    table = Table("rank", name, "class_name", "caption", "source", "id", box=None)
    for rank, hit in enumerate(hits.select([measured, "class_name", "caption", "source", "id"]).to_pylist(), start=1):
        table.add_row(str(rank), f"{hit[measured]:.4f}", *(_shown(hit[column]) for column in ("class_name", "caption", "source", "id")))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:  # whoever reads a pipe wants whole lines
        console.width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
