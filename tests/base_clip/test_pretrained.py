"""Bases from open_clip checkpoints, on a small model registered with open_clip under a name of its own."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from assets import artifacts
from assets.base_clip.pretrained import make_pretrained_clip
from assets.clip.model import WEIGHTS, load_clip
from assets.errors import UserError
from assets.params import OpenClip
from tests.models import CONFIGS, write_bert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(folder with tiny.pt and tiny.safetensors, the model they hold)."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "onespace-tiny.json").write_text(json.dumps(CONFIGS["vit"]))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model("onespace-tiny").eval()
    torch.save({"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}, "epoch": 3}, folder / "tiny.pt")
    save_file(model.state_dict(), folder / "tiny.safetensors")
    return folder, model


def settings(**changes):
    return OpenClip.model_validate({"source": "open_clip", "model": "onespace-tiny", "pretrained": "absent", "resize": "own", **changes})


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
    assert (card["recipe"], card["stage"], card["made_from"]) == ("base", "base_clip", [])
    assert card["inputs"] == {name: artifacts.sha256_of(folder / name)}


def as_training_saves(state):
    return {"state_dict": {f"module.{name}": value for name, value in state.items()}, "optimizer": {"lr": 1.0}, "epoch": 3, "name": "run"}


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("vit", "state_dict.pt"),
        ("custom_text", "training.pt"),
        ("resnet", "training.pt"),
        ("sigmoid", "safetensors"),
        ("timm_and_hugging_face", "state_dict.pt"),
        ("timm_and_hugging_face", "safetensors"),
    ],
)
def test_checkpoints_of_every_kind_of_tower_load_strictly_both_ways(kind, form, tmp_path):
    """open_clip's file → a model directory here → plain open_clip."""
    config, name = CONFIGS[kind], f"onespace-{kind.replace('_', '-')}-{form.split('.')[0].replace('_', '-')}"
    hugging_face = "hf_model_name" in config["text_cfg"]
    if hugging_face:
        (tmp_path / "bert").mkdir()
        write_bert(tmp_path / "bert")
        paths = {"hf_model_name": str(tmp_path / "bert"), "hf_tokenizer_name": str(tmp_path / "bert")}
        config = config | {"text_cfg": config["text_cfg"] | paths}
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    torch.manual_seed(0)
    original = open_clip.create_model(name, pretrained_text=False)
    for buffer in original.buffers():
        if buffer.ndim == 1:  # of batch norms, so that they differ from those of a new model
            buffer.uniform_(0.5, 1.5)
    state, file = original.state_dict(), tmp_path / f"checkpoint.{form.split('.')[-1]}"
    if form == "safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, file)
    else:
        torch.save(as_training_saves(state) if form == "training.pt" else state, file)

    make_pretrained_clip(settings(model=name, pretrained=str(file)), tmp_path / "base")
    mine, _, tokenizer = load_clip(tmp_path / "base")
    plain = open_clip.create_model(name, pretrained_text=False)
    plain.load_state_dict(load_file(tmp_path / "base" / WEIGHTS), strict=True)
    if not hugging_face:  # plain open_clip looks such a tower up by its name
        assert_same(open_clip.create_model(f"local-dir:{tmp_path / 'base'}", require_pretrained=True).state_dict(), state)
    assert_same(mine.state_dict(), state)
    assert_same(plain.state_dict(), state)
    assert tokenizer(["a dog"]).shape[1] == config["text_cfg"]["context_length"]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_model_of_open_clip_s_own_list(tmp_path):
    torch.manual_seed(0)
    original = open_clip.create_model("ViT-S-32-alt").half()
    torch.save(original.state_dict(), tmp_path / "small.pt")  # in half precision, as many are published
    make_pretrained_clip(settings(model="ViT-S-32-alt", pretrained=str(tmp_path / "small.pt")), tmp_path / "base")
    plain = open_clip.create_model(f"local-dir:{tmp_path / 'base'}", require_pretrained=True)
    assert_same(plain.state_dict(), original.float().state_dict())
    assert_same(load_clip(tmp_path / "base")[0].state_dict(), original.state_dict())


def test_a_squashed_picture_shows_its_sides(tiny, tmp_path):
    """A crop out of the middle never shows what stands at the sides of a wide picture; training does, which squashes."""
    folder, _ = tiny
    wide = Image.new("RGB", (300, 100), (0, 0, 0))
    wide.paste((255, 255, 255), (0, 0, 90, 100))
    seen = {}
    for resize in ("own", "squash"):
        make_pretrained_clip(settings(pretrained=str(folder / "tiny.pt"), resize=resize), tmp_path / resize)
        _, preprocess, _ = load_clip(tmp_path / resize)
        _, _, plain = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / resize}")
        seen[resize] = preprocess(wide)
        assert torch.equal(plain(wide), seen[resize]), "plain open_clip prepares pictures otherwise"
    assert seen["own"].std(dim=(1, 2)).max() < 1e-3
    assert seen["squash"].shape == seen["own"].shape
    assert seen["squash"].std(dim=(1, 2)).min() > 0.1


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
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        make_pretrained_clip(settings(pretrained=str(tmp_path / "harmful.pt")), tmp_path / "base")
    assert caught.type is UserError, "no network failed: another try is of no use"
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
