"""Which epoch of a training is kept, by its validation; the untrained start is one of the candidates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Rows = list[dict[str, Any]]  # a history: the start (epoch 0), then one row for each validation


@dataclass(frozen=True)
class Kept:
    """What a training keeps, and why."""

    epoch: int  # 0: the start
    share: float  # of the way from the start to that epoch's weights; 1: these themselves
    chosen: bool  # by validation
    why: str
    best_is_last: bool  # validation chose the last epoch: it may still have been rising
    validated_on: str  # which pictures searched
    measures: dict[str, Any]  # of validation
    way_back: list[dict[str, Any]]  # the points that were tried between the start and `epoch`: share, epoch and measures of each

    def __str__(self) -> str:
        where = f"epoch {self.epoch}" if self.share == 1 else f"{self.share:.0%} of the way from the start to epoch {self.epoch}"
        return f"{where}, {self.why}"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "said": str(self)}


def best_row(rows: Rows, select_by: str, *, choosing: bool) -> dict[str, Any]:
    """The row with the highest measure, of equal ones that of the most training.

    The last one where there is nothing to measure (None), or where validation is not good enough for `choosing`.
    """
    values = [row[f"validation_{select_by}"] for row in rows]
    if not choosing or any(value is None for value in values):
        return rows[-1]
    return rows[max(range(len(rows)), key=lambda place: (values[place], place))]


def kept(rows: Rows, select_by: str, *, start_is_candidate: bool, cannot_choose: str | None, validated_on: str) -> Kept:
    """What `best_row` gives of the candidates, with the reason."""
    best = best_row(rows if start_is_candidate else rows[1:], select_by, choosing=cannot_choose is None)
    value, start = (row[f"validation_{select_by}"] for row in (best, rows[0]))
    if cannot_choose is None and value is None:
        cannot_choose = "validation has nothing to measure"
    chosen = cannot_choose is None
    if not chosen:
        why = f"the last: {cannot_choose}"
    elif best["epoch"] == 0:
        why = start_is_best(select_by, start)
    else:
        why = f"the best by validation {select_by}: {value:.3f}, at the start {start:.3f}"
    return Kept(best["epoch"], 1.0, chosen, why, chosen and best is rows[-1], validated_on, measures_of(best), [])


def start_is_best(select_by: str, value: float) -> str:
    return f"the start itself: nothing that training made has as high a validation {select_by} as its {value:.3f}"


def measures_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name.startswith("validation_")}
