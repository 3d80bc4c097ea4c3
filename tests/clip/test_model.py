"""A model directory: what is missing is named, a full disk is reported as one, a tuned copy keeps all but the weights."""

import errno

import pytest
import torch
from safetensors import SafetensorError

from assets import artifacts
from assets.clip import model as module
from assets.clip.model import CONFIG, WEIGHTS, load_clip, save_tuned, save_weights
from assets.errors import UserError
from tests.models import write_model


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_a_directory_without_a_file_that_it_needs(tmp_path, missing):
    write_model(tmp_path / "base")
    (tmp_path / "base" / missing).unlink()
    with pytest.raises(UserError, match=rf"base is not a model directory: it has no {missing}"):
        load_clip(tmp_path / "base")


def test_a_tuned_copy_has_its_own_weights_and_card_and_the_rest_of_its_start(tmp_path):
    tuned = write_model(tmp_path / "base", "timm_and_hugging_face")
    with torch.no_grad():
        tuned.logit_scale += 1
    save_tuned(tuned, tmp_path / "base", tmp_path / "tuned", {"recipe": "tuned"})
    names = {path.name for path in (tmp_path / "base").iterdir()}
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == names
    for name in names - {WEIGHTS, artifacts.MODEL_CARD}:
        assert (tmp_path / "tuned" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    assert artifacts.read_json(tmp_path / "tuned" / artifacts.MODEL_CARD) == {"recipe": "tuned"}
    found = load_clip(tmp_path / "tuned")[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in tuned.state_dict().items())


def test_a_full_disk_is_reported_as_one(tmp_path, monkeypatch):
    def full(*given):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    tuned = write_model(tmp_path / "base")
    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match="No space left") as raised:
        save_weights(tuned, tmp_path)
    assert raised.value.errno == errno.ENOSPC
