"""New pictures are looked at beside what was published before, and a drop that is surely broken ends the stage."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets import artifacts
from assets.curated_images.drop import look, refuse_if_blocked
from assets.curated_images.thumbnails import VALUES, Thumbnails
from assets.errors import UserError
from assets.params import Drop

LIMITS = dict.fromkeys(("rejected", "sizes", "brightness", "captions", "unlike"), 0.2)
SETTINGS = Drop(warn=LIMITS, block={"rejected": 0.5, "brightness": 0.9}, min_pictures=20, accepted=None)
OLD, NEW = 300, 60


class Library:
    """300 accepted pictures and 60 new ones of the same kind, whose values a test may change."""

    def __init__(self, root: Path) -> None:
        chance = np.random.default_rng(0)
        count = OLD + NEW
        patterns = chance.integers(60, 200, (30, VALUES))  # pictures of a class resemble each other
        self.pixels = (patterns[np.arange(count) % 30] + chance.integers(-30, 30, (count, VALUES))).astype(np.uint8)
        self.columns: dict[str, Any] = {
            "id": [f"{n:04}.png" for n in range(count)],
            "sha256": [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)],
            "label": [f"c{n % 10}" for n in range(count)],
            "width": chance.integers(50, 150, count),
            "height": chance.integers(50, 150, count),
            "captions": [["a word " * int(n)] for n in chance.integers(1, 6, count)],
            "thumbnail": range(count),
        }
        self.refused = [{"id": "old.png", "reason": "undecodable", "detail": ""}]
        self.file = root / "thumbnails"
        artifacts.ACCEPTED.parent.mkdir(parents=True)
        accepted = {"id": [*self.columns["id"][:OLD], "old.png"], "sha256": [*self.columns["sha256"][:OLD], None]}
        pl.DataFrame(accepted, schema={"id": pl.String, "sha256": pl.String}).write_parquet(artifacts.ACCEPTED)

    def look(self, settings: Drop = SETTINGS) -> dict[str, Any]:
        self.pixels.tofile(self.file)
        usable = pl.DataFrame(self.columns)
        return look(usable, self.refused, lambda rows: Thumbnails(self.file, rows["thumbnail"].to_numpy()), settings)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.chdir(tmp_path)
    return Library(tmp_path)


def unusual(found: dict[str, Any]) -> set[str]:
    return {row["measure"] for row in found["rows"] if row["outcome"] != "clear"}


def test_more_of_the_same_is_clear(library: Library):
    found = library.look()
    assert (found["decision"], found["accepted"], found["new"], found["rejected"]) == ("clear", OLD, NEW, 0)
    assert [row["measure"] for row in found["rows"]] == ["rejected", "new_labels", "sizes", "brightness", "captions", "unlike"]
    assert all(row["share"] < 0.15 for row in found["rows"]), found["rows"]
    refuse_if_blocked(found)


def test_nothing_published_or_nothing_new_is_not_judged(library: Library):
    library.columns = {name: values[:OLD] for name, values in library.columns.items()}
    assert library.look() == {"decision": None, "name": None, "accepted": 0, "new": 0, "rejected": 0, "rows": []}
    artifacts.ACCEPTED.unlink()
    assert library.look()["decision"] is None


@pytest.mark.parametrize("measure", ["sizes", "captions", "brightness", "unlike"])
def test_what_changed_is_named(library: Library, measure: str):
    if measure == "sizes":
        library.columns["width"][OLD:] = 20
    elif measure == "captions":
        library.columns["captions"][OLD:] = [[]] * NEW
    elif measure == "brightness":
        library.pixels[OLD : OLD + NEW // 2] //= 3
    else:
        library.pixels[OLD:] = library.pixels[OLD:].reshape(NEW, 16, 48)[:, ::-1].reshape(NEW, VALUES)
    found = library.look()
    assert found["decision"] == "warn"
    assert measure in unusual(found)
    assert len(unusual(found)) <= (2 if measure == "brightness" else 1)


def test_pictures_that_were_rejected_before_count_no_more(library: Library):
    """A broken file that stays in the folder would have been new in every drop."""
    assert library.look()["rows"][0]["share"] == 0
    library.refused += [{"id": f"torn{n}.png", "reason": "undecodable", "detail": ""} for n in range(40)]
    found = library.look()
    assert (found["rejected"], found["rows"][0]["share"], found["decision"]) == (40, 0.4, "warn")


def test_a_broken_drop_ends_the_stage_until_it_is_accepted_by_name(library: Library):
    library.pixels[OLD:] = 0
    found = library.look()
    with pytest.raises(UserError, match=rf"held back before .*brightness.*curated_images\.drop\.accepted: {found['name']} in params\.yaml"):
        refuse_if_blocked(found)
    assert artifacts.read_json(artifacts.LAST_DROP) == found
    accepting = SETTINGS.model_copy(update={"accepted": found["name"]})
    assert library.look(accepting)["decision"] == "accepted"
    refuse_if_blocked(library.look(accepting))
    library.columns["sha256"][-1] = "f" * 64  # one more, or another picture: another drop
    assert library.look(accepting)["decision"] == "block"


def test_few_pictures_are_shown_and_not_judged(library: Library):
    library.columns = {name: values[: OLD + 5] for name, values in library.columns.items()}
    library.pixels[OLD:] = 0
    found = library.look()
    assert (found["new"], found["decision"]) == (5, "clear")
    assert library.look(SETTINGS.model_copy(update={"min_pictures": 5}))["decision"] == "block"


def test_a_renamed_picture_is_not_new_and_a_label_may_be(library: Library):
    library.columns["id"][0] = "renamed.png"
    library.columns["label"][OLD:] = ["another"] * NEW
    found = library.look(SETTINGS.model_copy(update={"warn": {"new_labels": 0.9}}))
    assert (found["new"], unusual(found)) == (NEW, {"new_labels"})
