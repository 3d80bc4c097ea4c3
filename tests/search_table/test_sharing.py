"""The published table at s3://, on a real server: searched from a checkout that has nothing but params.yaml, and by DuckDB and Polars."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import polars as pl
import pytest
from fastapi.testclient import TestClient

from assets import artifacts
from assets.commands import rollback
from assets.commands import share as command
from assets.errors import UserError
from assets.params import read_params
from assets.search_table import open_table, search
from assets.search_table.sharing import share
from assets.search_table.stage import publish
from assets.service.app import make_app
from tests.search_table.conftest import RECIPE, curated_rows, write_curated

ADDRESS = "s3://bucket/lancedb"


def visible_from(folder: Path) -> list[Any]:
    """Rows and hits that are found from a folder which has the settings alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        hits = search("a red heart", k=3)["id"].to_pylist()
        return [open_table().count_rows(), *hits, search("cat", version="publish-0001").num_rows]


def test_versions_tags_and_rollback_are_seen_at_the_address(s3, unpublished, tmp_path, capsys):
    """A clone had to make the table to search it; or it read versions half copied, or a rollback did not reach it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    text = Path("params.yaml").read_text(encoding="utf-8").replace("table: data/lancedb", f"table: {ADDRESS}")
    (elsewhere / "params.yaml").write_text(text, encoding="utf-8")
    settings = read_params()[0].search_table
    publish(settings, RECIPE)
    first = search("a red heart", k=3)["id"].to_pylist()
    assert command.main([ADDRESS + "/"]) == 0
    assert visible_from(elsewhere) == [26, *first, 10]
    assert not (elsewhere / "data").exists()

    write_curated(curated_rows(per_class=7))
    publish(settings, RECIPE)
    asked = s3.asked("PUT", "model.safetensors")
    assert "26 files" not in share(ADDRESS)
    assert s3.asked("PUT", "model.safetensors") == asked, "what is there is not copied again"
    assert share(ADDRESS).endswith(" 0 files, 0 bytes copied, 0 files removed.")
    assert visible_from(elsewhere)[0] == 30

    with pytest.MonkeyPatch.context() as patch:  # the page lists the address's versions, whatever is here
        patch.chdir(elsewhere)
        answer = TestClient(make_app(read_params()[0].search), base_url="http://127.0.0.1").get("/api/versions")
        assert [each["publish"] for each in answer.json()] == ["publish-0002", "publish-0001"]

    assert rollback.main(["publish-0001"]) == 0
    share(ADDRESS)
    assert visible_from(elsewhere) == [26, *first, 10]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        images = open_table().to_lance()
        assert duckdb.sql("select count(*) from images where split = 'test'").fetchall() == [(6,)]
        assert pl.scan_pyarrow_dataset(images).filter(pl.col("split") == "test").select(pl.len()).collect().item() == 6
    capsys.readouterr()
    shutil.rmtree(artifacts.LANCEDB)
    publish(settings, RECIPE)
    assert command.main([ADDRESS]) == 1
    assert f"{ADDRESS} holds another table than data/lancedb: their versions differ" in capsys.readouterr().err


def test_an_address_without_a_table_is_reported_with_what_to_do(s3, unpublished):
    fsspec.filesystem("s3").pipe("bucket/other/x", b"")
    file = Path("params.yaml")
    file.write_text(file.read_text(encoding="utf-8").replace("table: data/lancedb", "table: s3://bucket/other"), encoding="utf-8")
    for ask in (open_table, lambda: search("a red heart")):
        with pytest.raises(
            UserError, match=r"search\.table: s3://bucket/other/images\.lance is missing\..* `make share TO=s3://bucket/other`"
        ):
            ask()
    with pytest.raises(UserError, match=r"there is no table in data/lancedb"):
        share(ADDRESS)
