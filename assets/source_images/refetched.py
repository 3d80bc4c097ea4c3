"""Pictures that lie alone at addresses: an object that is as it was comes from the table that was read before, only others are fetched.

What is kept of an object, by its address, size and version, is the hash of its content. The picture that the earlier table has under the
same id is taken where it has this hash, so that nothing but the very content can come from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence

from assets import artifacts, kept
from assets.addresses import Stored
from assets.errors import UserError
from assets.pictures.table import read_batches
from assets.source_images.listed import Listed

logger = logging.getLogger(__name__)

AT_ONCE = 512  # pictures


def pictures_of(listed: Listed, ids: Sequence[str]) -> Iterator[bytes]:
    """The pictures of all rows, in their order. `ids`: what the table calls them, in ascending order."""
    if not listed.objects:
        yield from listed.read(range(len(listed.rows)))
        return
    taken = 0
    with kept.opened("fetched", {}, []) as store:
        earlier = _Earlier()
        for start in range(0, len(ids), AT_ONCE):
            some = range(start, min(start + AT_ONCE, len(ids)))
            names = {row: _digest(stored) for row in some if (stored := listed.objects[row]) is not None and stored.version}
            known = store.get(names.values())
            have = {}
            for row, name in names.items():
                if name in known and (picture := earlier.find(ids[row])) and hashlib.sha256(picture).digest() == known[name]:
                    have[row] = picture
            taken += len(have)
            fetched = listed.read([row for row in some if row not in have])
            new = {}
            for row in some:
                picture = have[row] if row in have else next(fetched)
                if row in names and picture:
                    new[names[row]] = hashlib.sha256(picture).digest()
                yield picture
            store.add({name: content for name, content in new.items() if name not in known})
            store.replace({name: content for name, content in new.items() if known.get(name, content) != content})
    if taken:
        logger.info("%d of %d pictures are as they were and were not fetched again", taken, len(ids))


def _digest(stored: Stored) -> bytes:
    return hashlib.sha256(f"{stored.address}\0{stored.size}\0{stored.version}".encode()).digest()


class _Earlier:
    """The pictures of the table that is there, asked for in ascending order of id; none where there is no whole table."""

    def __init__(self) -> None:
        self._rows = self._read()
        self._row: tuple[str, bytes] | None = next(self._rows, None)

    def find(self, wanted: str) -> bytes | None:
        while self._row is not None and self._row[0] < wanted:
            self._row = next(self._rows, None)
        return self._row[1] if self._row is not None and self._row[0] == wanted else None

    @staticmethod
    def _read() -> Iterator[tuple[str, bytes]]:
        with contextlib.suppress(UserError):
            for batch in read_batches(artifacts.SOURCE_IMAGES, ["id", "image"], AT_ONCE):
                yield from zip(batch["id"].to_pylist(), batch["image"].to_pylist(), strict=True)
