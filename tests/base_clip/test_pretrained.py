"""Bases from open_clip checkpoints, on a small model registered with open_clip under a name of its own."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from assets import artifacts
from assets.base_clip.pretrained import make_pretrained_clip
from assets.clip import load_clip
from assets.errors import UserError
from assets.params import OpenClip

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(folder with tiny.pt and tiny.safetensors, the model they hold)."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "onespace-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model("onespace-tiny").eval()
    torch.save({"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}, "epoch": 3}, folder / "tiny.pt")
    save_file(model.state_dict(), folder / "tiny.safetensors")
    return folder, model


def settings(**changes):
    return OpenClip.model_validate({"source": "open_clip", "model": "onespace-tiny", "pretrained": "absent", **changes})


@pytest.mark.parametrize("name", ["tiny.pt", "tiny.safetensors"])
def test_a_checkpoint_becomes_a_directory_that_loads_anywhere(tiny, name, tmp_path, monkeypatch):
    folder, model = tiny
    make_pretrained_clip(settings(pretrained=str(folder / name)), tmp_path / "base")
    monkeypatch.chdir(folder)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    texts = open_clip.get_tokenizer("onespace-tiny")(["a red heart", "a dog"])
    mine, preprocess, tokenizer = load_clip(tmp_path / "base")
    plain, _, plain_preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'base'}")
    with torch.inference_mode():
        expected = model.encode_image(preprocess(picture)[None]), model.encode_text(texts)
        for loaded, prepared in ((mine, preprocess), (plain.eval(), plain_preprocess)):
            torch.testing.assert_close(loaded.encode_image(prepared(picture)[None]), expected[0])
            torch.testing.assert_close(loaded.encode_text(tokenizer(["a red heart", "a dog"])), expected[1])
    files = {path.name for path in (tmp_path / "base").iterdir()}
    assert files == {"open_clip_config.json", "open_clip_model.safetensors", "model_card.json"}
    assert not any(str(folder) in path.read_text() for path in (tmp_path / "base").glob("*.json"))
    card = artifacts.read_json(tmp_path / "base" / "model_card.json")
    assert card["inputs"] == {name: artifacts.sha256_of(folder / name)}


def test_a_checkpoint_of_another_model_is_refused(tiny, tmp_path):
    _, model = tiny
    other = {name: value for name, value in model.state_dict().items() if "ln_final" not in name}
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"does not fit onespace-tiny.*ln_final"):
        make_pretrained_clip(settings(pretrained=str(tmp_path / "other.safetensors")), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_weights_trained_with_quick_gelu_get_it_although_the_model_s_name_does_not_say_so(tiny, tmp_path, monkeypatch):
    folder, _ = tiny
    tag = {"url": "", "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, pretrained: tag)
    make_pretrained_clip(settings(pretrained=str(folder / "tiny.safetensors")), tmp_path / "base")
    loaded, _, _ = load_clip(tmp_path / "base")
    assert {type(block.mlp.gelu).__name__ for block in loaded.visual.transformer.resblocks} == {"QuickGELU"}
    monkeypatch.undo()
    assert [open_clip.get_pretrained_cfg("ViT-L-14-336", "openai").get("quick_gelu")] == [True]  # the tag that README names


def test_a_pickle_with_code_in_it_is_never_run(tmp_path, tiny):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(UserError, match="cannot be loaded"):
        make_pretrained_clip(settings(pretrained=str(tmp_path / "harmful.pt")), tmp_path / "base")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ViT-B-99"}, r"open_clip has no 'ViT-B-99'. Near it: .*ViT-B-16"),
        ({"pretrained": "nonsense"}, "neither a tag of onespace-tiny"),
        ({"model": "ViT-B-32", "pretrained": "nonsense"}, "tag of ViT-B-32 .*openai"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(changes, message, tmp_path, tiny):
    with pytest.raises(UserError, match=message):
        make_pretrained_clip(settings(**changes), tmp_path / "base")
