"""One split of a picture table as an encoder takes it: its pictures opened, and a hash of all that decides what they show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from PIL import Image

from assets import artifacts
from assets.pictures.decoding import decode
from assets.pictures.table import Group, groups_of, shards


@dataclass(frozen=True)
class Split:
    """One split of a table, as an encoder takes it."""

    table: Path
    name: str

    @cached_property
    def sha256(self) -> str:
        """Of the whole table and the split's name."""
        files = tuple((shard, shard.stat().st_size, shard.stat().st_mtime_ns) for shard in shards(self.table))
        return hashlib.sha256(f"{_table_sha256(self.table, files)} {self.name}".encode()).hexdigest()

    @cached_property
    def _groups(self) -> list[Group]:
        return groups_of(self.table, self.name)

    def __len__(self) -> int:
        return sum(group.rows for group in self._groups)

    def items(self) -> Iterator[bytes]:
        """The encoded pictures, in the table's order."""
        for group in self._groups:
            yield from group.images()

    def open(self, item: bytes) -> Image.Image:
        return decode(item)


@lru_cache(maxsize=8)
def _table_sha256(table: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """A stage asks for several splits of one table; size and time of change are there to read again what was written anew."""
    return artifacts.sha256_of(table)
