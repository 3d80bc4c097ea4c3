"""The pictures that the page shows, each read and encoded once, with words and whom to credit. Choosing them is the sections'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assets.evaluations import TestSplit
from assets.pictures.small import data_uri, thumbnail


@dataclass(frozen=True)
class Album:
    """The pictures that the page may show: encoded bytes by id, shown at up to `side` pixels."""

    test: TestSplit
    encoded: Mapping[str, bytes]
    side: int
    made: dict[int, str] = field(default_factory=dict)  # by row, since a picture may be shown often

    def picture(self, row: int, right: bool | None) -> dict[str, Any]:
        """One picture for the template; `right` is None for a query."""
        said = {None: "", True: "right: ", False: "wrong: "}[right]
        (identifier,), (credit,) = self.test.ids([row]), self.test.credits([row])
        if row not in self.made:
            self.made[row] = data_uri(thumbnail(self.encoded[identifier], self.side))
        return {
            "uri": self.made[row],
            "alt": f"{said}{self.test.names[row]}, picture by {credit.source}",
            "title": f"{self.test.names[row]} · {credit.short}",
            "right": right,
        }
