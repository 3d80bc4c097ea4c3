"""Whom to credit for pictures that are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Credit:
    source: str
    license: str
    attribution: str

    @property
    def short(self) -> str:
        return f"{self.source} ({self.license})"

    @property
    def line(self) -> str:
        """For a picture file, where no address can be followed."""
        return f"{re.sub(r',? *https?://[^ ,]+', '', self.attribution)} ({self.license})"


def credits_of(rows: Iterable[dict[str, str]]) -> list[Credit]:
    """The distinct credits of some rows (source, license, attribution), sorted."""
    return sorted({Credit(row["source"], row["license"], row["attribution"]) for row in rows})


def credit_line(found: Sequence[Credit]) -> str:
    """What stands below a picture file that shows other pictures."""
    line = "Pictures: " + " · ".join(credit.line for credit in found)
    alike = share_alike(found)
    return f"{line}. This grid: {alike}, as its sources ask." if alike else f"{line}."


def share_alike(found: Sequence[Credit]) -> str | None:
    """The licence that a grid of these pictures must carry as well, where one of them asks for that."""
    return next((credit.license for credit in reversed(found) if credit.license.startswith("CC-BY-SA")), None)
