"""The examples of data/ANALYTICS.md run as they stand, and answer what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets.search_table import embed
from assets.search_table.stage import publish
from tests.search_table.conftest import RECIPE, curated_rows, write_curated


@pytest.fixture
def told(unpublished: Path, settings_with: Any, checkout: Path) -> dict[str, Any]:
    """What all blocks leave behind, run in order on a table of two versions: one picture has moved to another class, one is twice there."""
    rows = curated_rows()
    write_curated(rows)
    publish(settings_with(), RECIPE)
    rows = curated_rows()
    write_curated([*rows[:-1], rows[0] | {"id": "zwin", "label": None, "split": "library"}])
    publish(settings_with(), RECIPE)
    names: dict[str, Any] = {}
    text = (checkout / "data" / "ANALYTICS.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, "ANALYTICS.md", "exec"), names)
    return names


def test_the_examples_answer_what_they_say(told: dict[str, Any]) -> None:
    vectors, images = told["vectors"].astype(np.float64), told["images"].to_pydict()
    own = np.flatnonzero(np.array(images["class_name"], object) == "red heart")
    own = [row for row in own if images["label"][row] is not None]
    pairs = vectors[own] @ vectors[own].T
    density = told["density"].set_index("class_name")["density"]
    assert density["red heart"] == pytest.approx((pairs.sum() - np.trace(pairs)) / (len(own) * (len(own) - 1)), abs=1e-4)
    twins = {frozenset(pair) for pair in told["twins"].select("one", "other").iter_rows()}
    assert frozenset({"zwin", curated_rows()[0]["id"]}) in twins
    labels = dict(zip(images["id"], images["label"], strict=True))
    assert all(labels[row.id] == row.label != row.vote for row in told["suspects"].itertuples())
    assert set(told["drift"].index) == set(told["common"]) == set(images["id"]) - {"zwin"}
    assert told["drift"].between(0, 1).all()
    best = dict(told["coverage"].iter_rows())
    assert best["a sailboat"] == pytest.approx((embed("a sailboat") @ told["vectors"].T).max(), abs=1e-5)
