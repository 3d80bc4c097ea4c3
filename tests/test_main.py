"""python -m assets: what it lists, what it refuses, and that a stage clears up after removed recipes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from assets import artifacts
from assets.__main__ import main
from assets.params import read_params
from assets.stages import addresses
from tests.settings import demo_settings


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """A command sets what its process logs; the tests after these share the process."""
    loggers = [logging.getLogger(name) for name in (None, "assets")]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


@pytest.fixture
def with_a_row(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with our params.yaml and one recipe more."""
    monkeypatch.chdir(tmp_path)
    params = demo_settings()
    params["recipes"]["image_tower"]["wide"] = {"from": "base", "about": "a wider margin", "margin": 0.3}
    params["recipes"]["measured"].append("wide")
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return tmp_path


def test_without_a_stage_it_lists_those_of_params_yaml(with_a_row, capsys):
    assert main([]) == 2
    lines = {line.strip() for line in capsys.readouterr().out.splitlines()}
    known = set(addresses(read_params()[0]))
    assert {"image_tower@wide", "training_captions@wide", "evaluation@wide"} <= known <= lines
    assert main(["--help"]) == 0


@pytest.mark.parametrize("wanted", ["image_tower@wrong", "text_tower@gpr", "evaluation", "report@base", "image-tower"])
def test_an_unknown_stage_is_refused_with_the_known_ones(with_a_row, wanted, capsys):
    assert main([wanted]) == 1
    said = capsys.readouterr().err
    assert f"unknown stage {wanted!r}" in said
    assert "image_tower@wide" in said and "text_tower@gpr_rea" in said


def test_a_missing_input_names_the_command_that_makes_it(with_a_row, capsys):
    Path("data/benchmarks").mkdir(parents=True)
    assert main(["curated_images"]) == 1
    said = capsys.readouterr().err
    assert "missing input data/source_images/images. `dvc checkout` restores" in said and "`dvc repro curated_images` makes it" in said


def test_a_stage_first_removes_what_a_removed_recipe_left(with_a_row, capsys):
    kept, gone = (artifacts.model_dir(recipe) for recipe in ("wide", "gone"))
    for model in (kept, gone):
        artifacts.write_json(model / artifacts.MODEL_CARD, {"recipe": model.name})
    Path("data/emoji").mkdir(parents=True)
    main(["source_images"])  # it fails for want of package.json
    assert "error: source_images" in capsys.readouterr().err
    assert kept.exists() and not gone.exists()
