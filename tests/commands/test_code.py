"""dvc.yaml is rewritten in its code alone; comments, order and other dependencies stay as people wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.commands import code


def test_missing_and_superfluous_files_are_mended_and_nothing_else(checkout: Path):
    text = (checkout / "dvc.yaml").read_text(encoding="utf-8")
    assert "      - assets/curated_images\n" in text and "# dvc cannot give" in text
    spoilt = text.replace("      - assets/curated_images\n", "      - assets/report/plots.py\n", 1)
    assert spoilt != text
    assert code.with_code(spoilt) == text


def test_check_fails_where_the_code_differs_and_writing_mends_it(checkout: Path, tmp_path: Path, monkeypatch, capsys):
    text = (checkout / "dvc.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(text.replace("      - assets/curated_images\n", "", 1), encoding="utf-8")
    assert code.main(["--check"]) == 1
    assert "`make code` writes it" in capsys.readouterr().err
    assert code.main([]) == 0
    assert Path("dvc.yaml").read_text(encoding="utf-8") == text
    assert code.main(["--check"]) == 0


@pytest.mark.parametrize("stage", ["source_images", "training_captions", "promotion"])
def test_stages_without_a_model_depend_on_no_code_of_models(stage: str):
    assert not any(path.startswith(("assets/clip", "assets/training/")) for path in code.code_of(stage))
