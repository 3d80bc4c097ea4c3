"""Section «The drop»: what was new since the last publish when curation ran, beside what was accepted. Judging it is curated_images'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assets import artifacts

MARKS = {"clear": "", "warn": "unusual", "block": "beyond the limit"}


def read_drop() -> dict[str, Any]:
    found: dict[str, Any] = artifacts.read_json(artifacts.DROP)
    return found


def drop_view(found: Mapping[str, Any]) -> dict[str, Any]:
    """`drop`: None where nothing was new, or nothing had been published."""
    if found["decision"] is None:
        return {"drop": None}
    rows = [
        {
            "name": row["name"],
            "accepted": _value(row, "accepted"),
            "new": _value(row, "new"),
            "share": "–" if row["share"] is None else f"{100 * row['share']:.3g} %",
            "limits": ", ".join(f"{name} {100 * row[name]:g} %" for name in ("warn", "block") if row[name] is not None),
            "outcome": row["outcome"],
            "mark": MARKS[row["outcome"]],
        }
        for row in found["rows"]
    ]
    return {"drop": {name: found[name] for name in ("decision", "name", "accepted", "new", "rejected")} | {"rows": rows}}


def _value(row: Mapping[str, Any], side: str) -> str:
    if row[side] is None:
        return "–"
    return f"{100 * row[side]:.3g} %" if row["measure"] in ("rejected", "new_labels") else f"{row[side]:.3g}"
