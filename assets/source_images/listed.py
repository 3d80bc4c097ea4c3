"""Pictures that are known by their rows and not read yet, and how several sources stay apart. Finding them is each kind's concern."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from assets import artifacts
from assets.addresses import Stored
from assets.params import Source

Row = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """`rows`: those of IMAGES_SCHEMA without their pictures, in order of id.

    `read`, of positions in `rows`, gives their encoded pictures in the same order, b"" for one that cannot be read: curated_images counts
    and rejects it like any broken picture. `objects`: for each row the object that its picture is, where it lies alone at an address.
    """

    rows: list[Row]
    read: Callable[[Sequence[int]], Iterator[bytes]]
    objects: Sequence[Stored | None] = ()


def named(row: Row, source: Source) -> Row:
    """The row as one of a source with a name: its id begins with the name, its label and family with `labels`, or the name too.

    So a label of one source is not that of another, unless both have the same `labels`. Without a name, the row as it is.
    """
    if source.name is None:
        return row
    space = source.labels or source.name
    mine = {column: f"{space}/{row[column]}" for column in ("label", "family") if row[column] is not None}
    drawn = row["source"] != source.kind  # emoji name the set that drew them, whose licence it is
    return row | mine | {"id": f"{source.name}/{row['id']}", "source": row["source"] if drawn else source.name}


def in_order(stream: Callable[[], Iterable[Any]], positions: Sequence[int]) -> Iterator[Any]:
    """Of a source that can only be read from its start on, what it holds at `positions`, in the order of these.

    Where that is not the source's own order, the pictures wait in a file beside the pipeline's other work, never in memory.
    """
    wanted = set(positions)
    if all(before < after for before, after in pairwise(positions)):
        if not wanted:
            return
        for position, value in enumerate(stream()):
            if position in wanted:
                yield value
            if position == positions[-1]:
                return
        return
    artifacts.WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=artifacts.WORK) as waiting:
        places: dict[int, tuple[int, int, bool]] = {}  # start, length, whether it is text
        for position, value in enumerate(stream()):
            held = value.get("bytes") if isinstance(value, dict) else value
            content = held.encode("utf-8", "replace") if isinstance(held, str) else held
            if position in wanted and isinstance(content, bytes):
                places[position] = (waiting.tell(), len(content), isinstance(held, str))
                waiting.write(content)
        for position in positions:
            if position not in places:
                yield None
                continue
            start, length, text = places[position]
            waiting.seek(start)
            content = waiting.read(length)
            yield content.decode() if text else content
