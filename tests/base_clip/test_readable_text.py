"""The case of a user whose class names all had one and the same vector: every kind of base says so at once, in its card and its log."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from assets import artifacts
from assets.base_clip import demo
from assets.base_clip.stage import make_base_clip, note_readability
from assets.params import OpenClip, Training
from tests.models import CONFIGS
from tests.training.tables import curated_row, png, write_curated

SCRIPTS = ["猫", "狗", "鸟", "鱼", "แมว", "สุนัข", "😀", "🚗", "虎", "龙"]


def write_classes(names: list[str], captions: list[str]) -> None:
    """Six pictures of each class, as in a folder: half of the classes for tests, and one picture of each in the library, unlabelled."""
    noise = np.random.default_rng(0)
    rows = []
    for number, name in enumerate(names):
        for view in range(6):
            split = "library" if view == 5 else "test" if number % 2 else "validation" if view == 4 else "train"
            own = {} if split == "library" else {"class_name": name}
            label = {"label": None, "class_name": ""} if split == "library" else {}
            row = curated_row(name, view, png(noise.integers(0, 255, (36, 36, 3))), split, captions=captions)
            rows.append(row | own | label)
    write_curated(rows)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "assets")


def noted_by_the_demo() -> list[dict]:
    """The demo's base without its weights: what is read depends on its tokenizer alone."""
    base = artifacts.model_dir("base")
    demo._write_parts(32, base)
    artifacts.write_json(base / artifacts.MODEL_CARD, {"recipe": "base"})
    note_readability(base, artifacts.CURATED_IMAGES)
    card = artifacts.read_json(base / artifacts.MODEL_CARD)
    assert card["recipe"] == "base"
    return card["readable"]


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


def test_class_names_that_the_demo_cannot_read(caplog):
    write_classes(SCRIPTS, ["an animal", "😀"])
    names, captions = noted_by_the_demo()
    assert (names["what"], names["texts"], names["unreadable"]["texts"]) == ("class names", 10, 10), "of test classes too"
    assert (captions["what"], captions["texts"], captions["unreadable"]["texts"]) == ("captions", 2, 1)
    said = warnings(caplog)
    assert "10 of 10 class names cannot be read" in said
    assert "猫" in said
    assert "1 of 2 captions cannot be read" in said
    assert "base_clip: {source: open_clip, model: xlm-roberta-base-ViT-B-32" in said, "a way on"
    assert [*names["said"], *captions["said"]] == [line for line in said.splitlines() if " of " in line and "base_clip" not in line]


def test_the_base_that_is_advised_is_one_of_open_clip_s():
    assert "laion5b_s13b_b90k" in open_clip.list_pretrained_tags_by_model("xlm-roberta-base-ViT-B-32")


def test_words_that_are_read_are_no_reason_to_warn(caplog):
    write_classes(["red heart", "Café", "drapeau"], ["an animal"])
    names, captions = noted_by_the_demo()
    assert names["lost"] == captions["lost"] == 0.0
    assert names["said"] == captions["said"] == []
    assert warnings(caplog) == ""


def test_a_rare_caption_that_cannot_be_read_is_logged_without_a_warning(caplog):
    """Three of the demo's 3,680 captions are ♪, 〒 and ✓: another base would be too much advice."""
    write_classes(["red heart"], [*(f"picture {number}" for number in range(200)), "♪"])
    _, captions = noted_by_the_demo()
    assert captions["said"] == [
        "1 of 201 captions cannot be read: the tokenizer knows no part of them, so they all have one embedding (♪)."
    ]
    assert captions["said"][0] in caplog.text
    assert warnings(caplog) == ""


def test_a_checkpoint_of_open_clip_notes_it_as_well(tmp_path, caplog):
    """Its byte pairs know no unknown token."""
    (tmp_path / "onespace-tiny-words.json").write_text(json.dumps(CONFIGS["vit"]))
    open_clip.add_model_config(tmp_path / "onespace-tiny-words.json")
    torch.save(open_clip.create_model("onespace-tiny-words").state_dict(), tmp_path / "tiny.pt")
    write_classes(SCRIPTS, [])
    settings = OpenClip(source="open_clip", model="onespace-tiny-words", pretrained=str(tmp_path / "tiny.pt"), resize="own")
    make_base_clip(settings, Training(processes=1, compile=False, checkpoint_minutes=60.0))
    card = artifacts.read_json(artifacts.model_dir("base") / artifacts.MODEL_CARD)
    assert (card["stage"], card["params"]["source"]) == ("base_clip", "open_clip")
    names, captions = card["readable"]
    assert names["spelled"]["texts"] == 7
    assert captions["texts"] == 0
    assert "7 of 10 class names are read in pieces of characters" in warnings(caplog)
