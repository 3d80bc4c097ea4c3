"""The demo's base: what it leaves on a corpus of two classes with nothing to validate on, and when its alignment ends."""

import numpy as np
import pytest

from assets import artifacts
from assets.base_clip.stage import make_base_clip
from assets.clip.encoder import Encoder
from assets.params import DemoClip, Training
from assets.training import validation
from tests.settings import demo_settings
from tests.training.tables import curated_row, png, write_colors, write_curated

TRAINING = Training(processes=1, compile=False, checkpoint_minutes=60.0)


@pytest.fixture(scope="module")
def written(checkout):
    return demo_settings()["base_clip"] | {"image_size": 32, "device": "cpu"}


def test_without_validation_images_the_last_epoch_is_kept(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    places = [("a", 0, "train"), ("a", 1, "train"), ("b", 0, "test"), ("b", 1, "test")]
    write_curated([curated_row(label, view, png(noise.integers(0, 255, (32, 32, 3))), split, captions=[]) for label, view, split in places])
    make_base_clip(DemoClip.model_validate(written | {"epochs": 2}), TRAINING)
    card = artifacts.read_json(artifacts.model_dir("base") / artifacts.MODEL_CARD)
    assert (card["recipe"], card["stage"], card["made_from"]) == ("base", "base_clip", [])
    assert "compile" not in card["params"]
    assert card["validation"] == dict.fromkeys(["validation_text_to_image", "validation_image_to_image", "validation_spread"])
    assert [row["epoch"] for row in card["alignment"]] == [1, 2]
    encoder = Encoder(artifacts.model_dir("base"), device="cpu", precision="fp32", batch_size=1)
    assert np.isfinite(encoder.texts_now(["a"])).all()


@pytest.mark.parametrize(("patience", "epochs"), [(None, 4), (2, 3)])
def test_the_alignment_ends_with_its_schedule_unless_there_is_a_patience(tmp_path, monkeypatch, written, patience, epochs):
    """A recall that saturates in the first epochs must not cut the schedule, unless asked for."""
    monkeypatch.chdir(tmp_path)
    write_colors({"red": (220, 30, 30), "blue": (40, 60, 220)})
    monkeypatch.setattr(validation, "text_to_image", lambda *given: 1.0)  # from the first epoch on
    make_base_clip(DemoClip.model_validate(written | {"epochs": 4, "batch_size": 8, "patience": patience}), TRAINING)
    rows = artifacts.read_json(artifacts.model_dir("base") / artifacts.MODEL_CARD)["alignment"]
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
