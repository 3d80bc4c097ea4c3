"""One split of a picture table as an encoder takes it: its pictures opened, and a digest of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from assets.pictures.decoding import decode
from assets.pictures.table import Group, groups_of


@dataclass(frozen=True)
class Split:
    """One split of a table, as an encoder takes it."""

    table: Path
    name: str

    def digests(self) -> list[bytes]:
        """Of the encoded pictures."""
        return [hashlib.sha256(item).digest() for item in self.items()]

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
