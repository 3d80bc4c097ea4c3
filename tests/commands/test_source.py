"""`make demo SOURCE=` writes what it recognises into params.yaml, and the plan counts what is there without making anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.commands import plan, source
from assets.params import read_params
from tests.settings import demo_text
from tests.source_images.same_pictures import KINDS


@pytest.fixture(autouse=True)
def params_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(demo_text(), encoding="utf-8")


def test_a_path_of_any_kind_becomes_the_source_and_stays_as_it_was_corrected(tmp_path, capsys):
    """The second `make demo SOURCE=` with the same path undid what the user had said of its columns."""
    KINDS["parquet"](tmp_path / "pictures")
    assert source.main(["pictures"]) == 0
    assert "the pictures come from pictures (table, columns image: picture)." in capsys.readouterr().out
    text = Path("params.yaml").read_text(encoding="utf-8").replace("image: picture", "image: picture\n        label: kind")
    Path("params.yaml").write_text(text, encoding="utf-8")
    assert source.main(["pictures"]) == 0
    assert "columns image: picture, label: kind), as before" in capsys.readouterr().out
    assert Path("params.yaml").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_is_planned_without_making_anything(kind, tmp_path):
    """The plan knew folders alone, and counted the table of an earlier source."""
    described = KINDS[kind](Path("pictures"))
    other = KINDS["folder"](Path("more")) | {"name": "more"}
    credit = {"license": "", "attribution": ""}
    params, written = read_params()
    sources = [credit | described | {"name": "pictures"}, credit | other]
    settings = type(params.source_images).model_validate({"sources": sources})
    found = plan.listing(params.model_copy(update={"source_images": settings}), written)
    assert found is not None and len(found.ids) == len(set(found.ids)) == 22
    assert {label.partition("/")[0] for label in found.labels if label} == {"pictures", "more"}
    assert (found.captioned, found.captions) == (12, 7)
    assert found.given.count("test") == 2 and found.sample
    assert not Path("data").exists()
