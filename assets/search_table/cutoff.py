"""The cosine below which hits are left out: a number, or «same» or «related» as the table's version was calibrated. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from assets.errors import UserError

Cutoff = float | Literal["same", "related"]
NAMES = ("same", "related")


def lowest_cosine(cutoff: Any, kind: Literal["picture", "text"], calibration: dict[str, Any]) -> float:
    """`calibration`: of the manifest. UserError for a cutoff that is none, or that this version does not know."""
    number = float(cutoff) if isinstance(cutoff, int | float | np.floating) and not isinstance(cutoff, bool) else None
    if number is not None and -1 <= number <= 1:
        return number
    if not isinstance(cutoff, str) or cutoff not in NAMES:
        raise UserError(f"cutoff is {cutoff!r}; it must be 'same', 'related', or a cosine from -1 to 1.")
    found = calibration.get(kind, {}).get(cutoff)
    if found is None:
        raise UserError(
            f"this version of the table does not know from which cosine on a hit of a {kind} query is {cutoff!r}: that is measured when"
            " it is published, on test pictures of at least two classes. Give a cosine as the cutoff, such as 0.5."
        )
    return float(found)


def meaning(calibration: dict[str, Any]) -> list[str]:
    """One sentence for each cutoff that is known."""
    said = []
    for kind, values in sorted(calibration.items()):
        if values.get("same") is None:
            continue
        said.append(
            f"{kind} query, same: cosine {values['same']:.2f} or more; of such pairs {100 * values['precision']:.0f} % are of one class,"
            f" and {100 * values['recall']:.0f} % of all pairs of one class are among them."
        )
        said.append(f"{kind} query, related: cosine {values['related']:.2f} or more; closer than 99 of 100 pairs of different classes.")
    return said
