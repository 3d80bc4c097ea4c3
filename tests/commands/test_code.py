"""dvc.yaml is rewritten in its code alone; comments, order and other dependencies stay as people wrote them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assets import params
from assets.commands import code
from assets.errors import UserError
from assets.params import read_params
from assets.source_images.watched import check_watched


def test_missing_and_superfluous_files_are_mended_and_nothing_else(checkout: Path):
    text = (checkout / "dvc.yaml").read_text(encoding="utf-8")
    assert "      - assets/curated_images\n" in text and "# dvc cannot give" in text
    spoilt = text.replace("      - assets/curated_images\n", "      - assets/report/plots.py\n", 1)
    assert spoilt != text
    assert code.with_code(spoilt) == text


def test_check_fails_where_the_code_differs_and_writing_mends_it(checkout: Path, tmp_path: Path, monkeypatch, capsys):
    text = (checkout / "dvc.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkout / "params.yaml", "params.yaml")
    Path("dvc.yaml").write_text(text.replace("      - assets/curated_images\n", "", 1), encoding="utf-8")
    assert code.main(["--check"]) == 1
    assert "`make code` writes it" in capsys.readouterr().err
    assert code.main([]) == 0
    assert Path("dvc.yaml").read_text(encoding="utf-8") == text
    assert code.main(["--check"]) == 0


def test_every_path_that_a_source_names_is_watched_and_no_other(checkout: Path, tmp_path: Path, monkeypatch):
    """dvc watched the first source's root alone, so that pictures of the others could change and all was «up to date»."""
    text = (checkout / "dvc.yaml").read_text(encoding="utf-8")
    folder = {"kind": "image_folder", "name": "mine", "root": "data/images", "folders": ["label"]}
    table = {"kind": "table", "name": "shop", "root": "shop/table.csv", "pictures": "data/images", "columns": {"image": "path"}}
    shards = {"kind": "webdataset", "name": "web", "root": "s3://bucket/shards", "columns": {}}
    credit = {"license": "", "attribution": ""}
    sources = params.SourceImages.model_validate({"sources": [credit | each for each in (shards, folder, table)]}).sources
    more = code.with_sources(text, sources)
    (tmp_path / "dvc.yaml").write_text(more, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert [line for line in more.splitlines() if line not in text.splitlines()] == [
        "      - ${source_images.sources[1].root}",
        "      - ${source_images.sources[2].root}",
        "      - data/addresses.json",
    ]
    check_watched(sources)
    with pytest.raises(UserError, match=r"watches .*sources\[1\]\.root}.*`make code` writes"):
        check_watched(sources[1:])
    demo = read_params(checkout / "params.yaml")[0].source_images.sources
    assert code.with_sources(more, demo) == text


@pytest.mark.parametrize("stage", ["source_images", "training_captions", "promotion"])
def test_stages_without_a_model_depend_on_no_code_of_models(stage: str):
    assert not any(path.startswith(("assets/clip", "assets/training/")) for path in code.code_of(stage))
