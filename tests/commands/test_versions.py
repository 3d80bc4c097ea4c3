"""make versions, make rollback and the tag that make promote sets: what people read, over a real table."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pytest

from assets import artifacts
from assets.commands import promote, rollback, versions
from assets.params import read_params
from assets.search_table.writing import write_table
from tests.search_table.conftest import RECIPE, curated_rows, make_workplace, write_curated


@pytest.fixture
def twice_published(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two publishes by two models, of vectors that need no model; their sha256."""
    model = tmp_path / "model"
    model.mkdir()
    (model / artifacts.MODEL_CARD).write_text("{}")
    (tmp_path / "place").mkdir()
    make_workplace(tmp_path / "place", checkout, model, monkeypatch)
    sha256 = ["a" * 64, "b" * 64]
    for number, digest in enumerate(sha256):
        rows = curated_rows(per_class=5 + number)
        write_curated(rows)
        ids = [row["id"] for row in rows]
        write_table(np.eye(len(ids), 32, dtype=np.float32), ids, {}, RECIPE, digest, read_params()[0].search_table)
    return sha256


def test_versions_are_listed_with_what_made_them(twice_published: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever looks for the version to go back to needs its tags, rows and model, and which one is visible."""
    lancedb.connect(artifacts.LANCEDB).open_table("images").delete("id = 'a.png'")
    assert rollback.main([]) == 0
    capsys.readouterr()
    assert versions.main() == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["version", "visible", "since", "(UTC)", "tags", "rows", "model", "recipe", "vectors", "recall@10", "MB"]
    a, b = (f"{RECIPE}@{digest[:12]}" for digest in twice_published)
    assert [line.split()[0] for line in lines] == ["2", "3", "4", "5"]
    assert [" ".join(line.split()[3:]) for line in lines] == [
        f"publish-0001 22 {a} {RECIPE} float32, no index 1.000 0.0",
        f"candidate, publish-0002 26 {b} {RECIPE} float32, no index 1.000 0.0",
        "written by something else 25",
        f"again publish-0002 26 {b} {RECIPE} float32, no index 1.000 0.0 ← visible",
    ]


def test_rollback_says_what_is_visible_and_what_comes_next(twice_published: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The next `make demo` publishes the newer version again: who is not told thinks that the rollback failed."""
    assert rollback.main([""]) == 0  # as make calls it
    out = capsys.readouterr().out
    assert f"data/lancedb shows publish-0001 again: 22 rows, model {RECIPE}@{'a' * 12}." in out
    assert "brings the table up to date with params.yaml again" in out
    assert lancedb.connect(artifacts.LANCEDB).open_table("images").count_rows() == 22
    assert rollback.main(["candidate"]) == 0
    assert rollback.main(["publish-0009"]) == 1
    assert (
        "error: there is no published version 'publish-0009'. There are: publish-0001, candidate, publish-0002." in capsys.readouterr().err
    )
    assert rollback.main(["1", "2"]) == 2


def test_without_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A stack trace, or an empty folder data/lancedb that looks like a table."""
    monkeypatch.chdir(tmp_path)
    for command in (versions.main, lambda: rollback.main([])):
        assert command() == 1
        assert "there is no table in data/lancedb" in capsys.readouterr().err
    assert not artifacts.LANCEDB.exists()


def test_the_champion_s_version_gets_its_tag(twice_published: list[str]) -> None:
    """`make promote` left the champion's table to the cleaning."""
    assert promote._tag(twice_published[0]) == "data/lancedb: version 2 (publish-0001) has the tag champion."
    assert promote._tag("c" * 64) == (
        "data/lancedb has no version made by this model. After `dvc repro search_table`, `make promote` tags it."
    )
    assert rollback.main(["champion"]) == 0
