"""The same pictures give the same table, whatever kind of source they come from, and several sources stay apart in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from assets import artifacts, params
from assets.curated_images.stage import make_curated_images
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA
from assets.pictures.table import read_batches, read_rows
from assets.source_images.stage import make_source_images
from tests.settings import demo_settings
from tests.source_images.same_pictures import CREDIT, KINDS, folder, pictures


@pytest.fixture(autouse=True)
def checkout_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(*sources: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that the stage writes."""
    make_source_images(params.SourceImages.model_validate({"sources": [CREDIT | source for source in sources]}))
    return [row for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, 100) for row in batch.to_pylist()]


def curated() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    settings = demo_settings()["curated_images"] | {"test_fraction": 0.4}
    make_curated_images(params.CuratedImages.model_validate(settings))
    return read_rows(artifacts.CURATED_IMAGES).to_pylist(), pq.read_table(artifacts.REJECTED_IMAGES).to_pylist()


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "folder"])
def test_every_kind_of_source_gives_the_same_tables(kind, tmp_path):
    """A reader that loses or swaps a label, a caption, a split or a picture, or that does not give the broken one to be rejected."""
    expected = read(folder(tmp_path / "folder"))
    assert [row["image"] for row in expected] == [row["picture"] for row in pictures().values()]
    expected_kept, expected_rejected = curated()
    assert len(expected_kept) == 10 and len(expected_rejected) == 1
    source = KINDS[kind](tmp_path / "source")
    found = read(source)
    assert [row | {"source": ""} for row in found] == [row | {"source": ""} for row in expected]
    assert {row["source"] for row in found} == {source["kind"]}
    kept, rejected = curated()
    assert [row | {"source": ""} for row in kept] == [row | {"source": ""} for row in expected_kept]
    assert rejected == expected_rejected
    assert set(kept[0]) == set(CURATED_SCHEMA.names) - {"image"}
