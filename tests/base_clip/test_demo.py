"""The demo's base: what it leaves on a corpus of two classes with nothing to validate on, and how long it is aligned."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from assets import artifacts
from assets.base_clip.demo import IMAGE_PACKAGE, _package_folder
from assets.base_clip.stage import make_base_clip
from assets.clip.encoder import Encoder
from assets.clip.model import WEIGHTS
from assets.params import DemoClip, Guards, Training
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
    make_base_clip(DemoClip.model_validate(written | {"steps": 1, "epochs": 2}), TRAINING)
    card = artifacts.read_json(artifacts.model_dir("base") / artifacts.MODEL_CARD)
    assert (card["recipe"], card["stage"], card["made_from"]) == ("base", "base_clip", [])
    assert "compile" not in card["params"]
    measures = ["validation_text_to_image", "validation_image_to_image", "validation_search", "validation_spread"]
    assert card["kept"]["measures"] == dict.fromkeys(measures)
    assert (card["kept"]["epoch"], card["kept"]["why"]) == (2, "the last: there are no validation pictures")
    assert [row["epoch"] for row in card["alignment"]] == [0, 1, 2]
    encoder = Encoder(artifacts.model_dir("base"), device="cpu", precision="fp32", batch_size=1)
    assert np.isfinite(encoder.texts_now(["a"])).all()


def test_few_pictures_are_aligned_for_as_many_steps_as_asked(tmp_path, monkeypatch, written, caplog):
    """Thirty epochs of a small folder were a tenth of the demo's steps. Steps are counted, and the last epoch warns that it may rise."""
    monkeypatch.chdir(tmp_path)
    write_colors({f"colour{number}": (7 * number, 255 - 9 * number, 40 + 10 * number) for number in range(16)})
    scores = iter(range(100))
    monkeypatch.setattr(validation, "measures", lambda *given: {"search": float(next(scores))})
    # of flat colours nothing can be learnt with locked batch norms, which is not the question
    unguarded = {"guards": dict.fromkeys(Guards.model_fields)}
    settings = {"steps": 50, "epochs": 1, "validations": 3, "batch_size": 128, "batch_norm_from": 32, **unguarded}
    make_base_clip(DemoClip.model_validate(written | settings), TRAINING)
    card = artifacts.read_json(artifacts.model_dir("base") / artifacts.MODEL_CARD)
    # 64 pictures: batches of a quarter of them, four an epoch
    assert [(row["epoch"], row["step"]) for row in card["alignment"]] == [(0, 0), (5, 20), (10, 40), (13, 52)]
    assert (card["kept"]["epoch"], card["kept"]["best_is_last"]) == (13, True)
    assert "the best epoch is the last: train longer (base_clip.steps; these were 52)" in caplog.text


def test_small_batches_leave_the_batch_norm_statistics(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    write_colors({"red": (220, 30, 30), "blue": (40, 60, 220)})
    unguarded = {"guards": dict.fromkeys(Guards.model_fields)}  # two steps do not settle it, which is not the question
    means = []
    for smallest in (32, 8):
        settings = {"steps": 2, "epochs": 1, "batch_norm_from": smallest, "unlocked_groups": 17}
        make_base_clip(DemoClip.model_validate(written | settings | unguarded), TRAINING)
        means.append(load_file(artifacts.model_dir("base") / WEIGHTS)["visual.trunk.bn1.running_mean"])
    start = torch.load(_package_folder(IMAGE_PACKAGE) / "models" / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True)
    name = next(name for name in start if name.endswith("running_mean"))
    assert torch.equal(means[0], start[name])
    assert not torch.equal(means[1], start[name])
