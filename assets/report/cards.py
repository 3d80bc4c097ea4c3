"""Queries with their hits, and classes, as cards of pictures for the page, each with whom to credit. Choosing them is elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assets.pictures.small import data_uri, thumbnail
from assets.report.changes import ClassChange
from assets.report.examples import Answer, Query
from assets.report.inputs import TestSplit
from assets.report.measures import percent, signed

CLASS_PICTURES = 8  # of a class that gained or lost


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


def query_set(title: str, note: str, queries: Sequence[Query], album: Album) -> dict[str, Any]:
    """Queries to choose among: from the one that gained most right hits to the one that lost most, as given where they are equal."""
    return {"title": title, "note": note, "cards": [query_card(query, album) for query in sorted(queries, key=lambda query: -gain(query))]}


def gain(query: Query) -> int:
    """Right hits of the last recipe shown more than of the first."""
    right = [found.right for found in query.answers.values()]
    return right[-1] - right[0]


def query_card(query: Query, album: Album) -> dict[str, Any]:
    """A query with a strip of hits for each recipe, and whom to credit for the pictures in it."""
    return {
        "name": query.name,
        "picture": None if query.row is None else album.picture(query.row, None),
        "gain": gain(query),
        "right": " → ".join(str(found.right) for found in query.answers.values()),
        "strips": [
            {
                "recipe": recipe,
                "right": found.right,
                "total": len(found.hits),
                "tiles": [album.picture(hit.row, hit.right) for hit in found.hits],
                "note": first_right(found),
                "instead": found_instead(found, album.test),
            }
            for recipe, found in query.answers.items()
        ],
        "credits": sorted({credit.short for credit in album.test.credits(query.rows)}),
    }


def class_cards(changed: Sequence[tuple[ClassChange, Sequence[tuple[str, int]]]], album: Album) -> dict[str, Any]:
    """Classes with what they scored before and after, some of their pictures, what is found instead of them, and whom to credit."""
    cards = [
        {
            "name": album.test.names[change.rows[0]],
            "before": percent(change.before),
            "after": percent(change.after),
            "left": percent(min(change.before, change.after)),
            "width": percent(abs(change.points)),
            "points": signed(change.points),
            "tiles": [album.picture(row, None) for row in change.rows[:CLASS_PICTURES]],
            "instead": " · ".join(f"{name} ×{count}" for name, count in instead),
        }
        for change, instead in changed
    ]
    rows = [row for change, _ in changed for row in change.rows[:CLASS_PICTURES]]
    return {"cards": cards, "credits": sorted({credit.short for credit in album.test.credits(rows)})}


def first_right(found: Answer) -> str:
    return "nothing right to find" if found.first_right is None else f"first right one at rank {found.first_right:,}"


def found_instead(found: Answer, test: TestSplit) -> str:
    """The class names of the wrong hits, the most frequent first."""
    counts = Counter(test.names[hit.row] for hit in found.hits if not hit.right)
    return " · ".join(f"{name} ×{count}" if count > 1 else name for name, count in counts.most_common(4))
