"""A drop, the pictures that are new since the last publish, beside those that it was made from, before anything is trained on it.

What was accepted is recorded by publishing (data/search_table/accepted.parquet): without a publish there is nothing to compare with.
Curation's tables do not depend on it: a drop is let through, or the stage ends. Values are compared by how many new pictures lie outside
the range of nearly all accepted ones, so that no limit has a unit. Likeness is that of thumbnails: no model has seen the drop yet.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from assets import artifacts, params
from assets.curated_images.nearest import nearest
from assets.curated_images.thumbnails import Thumbnails
from assets.errors import UserError

logger = logging.getLogger(__name__)

RANGE = (0.01, 0.99)  # quantiles of the accepted pictures between which a value is usual
AT_LEAST = 20  # accepted pictures that a range is made of
GALLERY, HELD_OUT = 4_096, 256  # accepted pictures that are searched, and that search for comparison
LOOKED_AT = 1_024  # new pictures that search, and of either kind whose brightness is compared
CLEAR, WARN, BLOCK, ACCEPTED = "clear", "warn", "block", "accepted"
NAMES = {
    "rejected": "rejected",
    "new_labels": "of a label that no accepted picture has",
    "sizes": "shorter side, pixels",
    "brightness": "brightness, % of white",
    "captions": "characters of captions",
    "unlike": "difference to the most similar accepted picture (100 − correlation of thumbnails, %)",
}


def look(
    usable: pl.DataFrame, rejected: Sequence[dict[str, Any]], thumbnails: Callable[[pl.DataFrame], Thumbnails], settings: params.Drop
) -> dict[str, Any]:
    """What drop.json holds: `decision`, `name` of the drop, how many pictures are `accepted`, `new` and `rejected`, and `rows`.

    `usable`: the rows that curation keeps; `thumbnails` gives theirs. A row: {"measure", "name", "accepted" and "new": a median or a share,
    "share" of the new pictures that counts against the limits, "warn", "block", "outcome"}; shares are fractions. decision: clear, warn,
    block, or accepted where the settings accept a blocked drop by its name; null where nothing is new, or nothing was published.
    """
    nothing: dict[str, Any] = {"decision": None, "name": None, "accepted": 0, "new": 0, "rejected": 0, "rows": []}
    if not artifacts.ACCEPTED.exists():
        return nothing
    known = pl.read_parquet(artifacts.ACCEPTED)
    is_old = pl.col("sha256").is_in(known["sha256"].drop_nulls().implode())
    old, new = usable.filter(is_old), usable.filter(~is_old)
    ids = set(known["id"].to_list())
    refused = [row["id"] for row in rejected if row["id"] not in ids]
    counts = {"accepted": old.height, "new": new.height, "rejected": len(refused)}
    if not new.height and not refused:
        return nothing  # as before the first publish, so that making the tables again makes the same files
    name = hashlib.sha256("".join(sorted([*new["sha256"].to_list(), *refused])).encode()).hexdigest()[:12]
    rows = [_rejected(known, new.height, len(refused)), *(_compared(old, new, thumbnails) if new.height else [])]
    judged = new.height + len(refused) >= settings.min_pictures
    for row in rows:
        warn, block = (limits.get(row["measure"]) for limits in (settings.warn, settings.block))
        row |= {"warn": warn, "block": block, "outcome": CLEAR}
        if judged and row["share"] is not None:
            beyond = [said for said, limit in ((BLOCK, block), (WARN, warn)) if limit is not None and row["share"] > limit]
            row["outcome"] = beyond[0] if beyond else CLEAR
    decision = next((said for said in (BLOCK, WARN) if said in {row["outcome"] for row in rows}), CLEAR)
    if decision == BLOCK and settings.accepted == name:
        decision = ACCEPTED
    return {"decision": decision, "name": name, **counts, "rows": rows}


def refuse_if_blocked(found: dict[str, Any]) -> None:
    """UserError for a drop beyond a limit of `block`; a warning in the log for one beyond a limit of `warn`."""
    artifacts.write_json(artifacts.LAST_DROP, found)
    beyond = "; ".join(sentences(found))
    what = f"the drop of {found['new']} new pictures and {found['rejected']} rejected ones"
    if found["decision"] == BLOCK:
        raise UserError(
            f"{what} is held back before anything is trained on it: {beyond}. Details: {artifacts.LAST_DROP}. Take the wrong pictures out"
            " of the source; or accept this drop, and no other, with curated_images.drop.accepted:"
            f" {found['name']} in params.yaml; or change the limits in curated_images.drop.block there. Then run again."
        )
    if found["decision"] in (WARN, ACCEPTED):
        logger.warning("%s is unlike what was accepted: %s", what, beyond)
    elif found["decision"]:
        logger.info("%s, beside %d accepted pictures: nothing unusual", what, found["accepted"])


def sentences(found: dict[str, Any]) -> list[str]:
    """One for each row beyond a limit."""
    return [
        f"{row['share']:.0%} are {'' if row['measure'] in ('rejected', 'new_labels') else 'out of the usual range in '}{row['name']}"
        f" ({row['outcome']} above {row[row['outcome']]:.0%})"
        for row in found["rows"]
        if row["outcome"] != CLEAR
    ]


def _row(measure: str, accepted: float | None, new: float | None, share: float | None) -> dict[str, Any]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(float(value), 4)

    return {"measure": measure, "name": NAMES[measure], "accepted": rounded(accepted), "new": rounded(new), "share": rounded(share)}


def _rejected(known: pl.DataFrame, new: int, refused: int) -> dict[str, Any]:
    share = refused / (new + refused)
    return _row("rejected", known["sha256"].null_count() / known.height if known.height else None, share, share)


def _compared(old: pl.DataFrame, new: pl.DataFrame, thumbnails: Callable[[pl.DataFrame], Thumbnails]) -> list[dict[str, Any]]:
    labels = set(old["label"].drop_nulls().to_list())
    of_new_labels = sum(label is not None and label not in labels for label in new["label"].to_list()) / new.height
    rows = [_row("new_labels", 0.0, of_new_labels, of_new_labels)]
    some, few = _spread(old, GALLERY + HELD_OUT), _spread(new, LOOKED_AT)
    for measure, column in (("sizes", pl.min_horizontal("width", "height")), ("captions", _characters())):
        usual, found = (each.select(column).to_series().to_numpy() for each in (old, new))
        rows.append(_outside(measure, usual, found))
    rows.append(_outside("brightness", _brightness(thumbnails(_spread(old, LOOKED_AT))), _brightness(thumbnails(few))))
    # by hash, since neighbours in the order of ids may belong together
    held_out = np.array([int(digest[:8], 16) for digest in some["sha256"]]) % max(2, -(-some.height // HELD_OUT)) == 0
    gallery = some.filter(~held_out)
    if gallery.height >= AT_LEAST:
        searching = np.concatenate([thumbnails(some.filter(held_out))[:], thumbnails(few)[:]])
        unlike = 100 * (1 - nearest(searching, thumbnails(gallery))[1])
        rows.append(_outside("unlike", unlike[: held_out.sum()], unlike[held_out.sum() :], both_sides=False))
    else:
        rows.append(_row("unlike", None, None, None))
    return sorted(rows, key=lambda row: list(NAMES).index(row["measure"]))


def _characters() -> pl.Expr:
    return pl.col("captions").list.eval(pl.element().str.len_chars()).list.sum()


def _brightness(pictures: Thumbnails) -> np.ndarray:
    return pictures[:].mean(axis=1) / 2.55


def _spread(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many rows, evenly spread over their order."""
    return rows if rows.height <= most else rows[np.linspace(0, rows.height - 1, most).astype(np.int64)]


def _outside(measure: str, usual: np.ndarray, found: np.ndarray, both_sides: bool = True) -> dict[str, Any]:
    if len(usual) < AT_LEAST:
        return _row(measure, None, float(np.median(found)), None)
    low, high = np.quantile(usual, RANGE)
    outside = (found > high) | ((found < low) & both_sides)
    return _row(measure, float(np.median(usual)), float(np.median(found)), float(outside.mean()))
