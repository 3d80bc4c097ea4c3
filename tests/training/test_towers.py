"""Recomputed activations, dropped patches and compiled towers, on small real towers of each kind."""

import functools

import open_clip
import pytest
import torch
import torch._inductor.config

from assets.errors import UserError
from assets.training.towers import checkpoint_image_tower, checkpoint_text_tower, compiled, drop_patches

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}


def clip(vision, kind=open_clip.model.CLIP):
    torch.manual_seed(0)
    return kind(embed_dim=8, vision_cfg=vision, text_cfg=TEXT)


def timm_vision(name):
    return {"image_size": 32, "timm_model_name": name, "timm_model_pretrained": False, "timm_pool": "avg", "timm_proj": "linear"}


def gradients(model, inputs, encode):
    model.train()
    torch.manual_seed(1)
    encode(inputs).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", [open_clip.model.CLIP, open_clip.model.CustomTextCLIP])
def test_recomputed_activations_give_the_same_gradients(kind, monkeypatch):
    pictures, tokens = torch.randn(3, 3, 32, 32), torch.randint(1, 64, (3, 8))
    plain, spared = clip(VIT, kind), clip(VIT, kind)
    checkpoint_image_tower(spared)
    checkpoint_text_tower(spared)
    calls, real = [], torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(open_clip.transformer, "checkpoint", lambda *given, **named: calls.append(1) or real(*given, **named))
    for inputs, name in ((pictures, "encode_image"), (tokens, "encode_text")):
        expected, found = (gradients(model, inputs, getattr(model, name)) for model in (plain, spared))
        assert expected.keys() == found.keys()
        assert all(torch.allclose(expected[each], found[each], atol=1e-6) for each in expected)
    assert len(calls) == 4  # two layers of each tower


def test_towers_without_recomputation_say_so():
    resnet = clip({"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 8})
    with pytest.raises(UserError, match="ResNets do not support it"):
        checkpoint_image_tower(resnet)


def test_a_dropped_patch_is_gone_in_training_and_back_in_evaluation():
    model = clip(VIT)
    names = list(model.state_dict())
    before = model.eval().encode_image(torch.ones(2, 3, 32, 32))
    drop_patches(model, 0.5)
    seen = []
    model.visual.transformer.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    model.train().encode_image(torch.ones(2, 3, 32, 32))
    assert torch.equal(model.eval().encode_image(torch.ones(2, 3, 32, 32)), before)
    assert seen == [1 + 8, 1 + 16]  # the class token and half of 4 × 4 patches, then all
    assert list(model.state_dict()) == names


def test_a_timm_vit_drops_patches_and_a_convolution_has_none():
    pictures = torch.randn(2, 3, 32, 32)
    vit = clip(timm_vision("test_vit"), open_clip.model.CustomTextCLIP)
    drop_patches(vit, 0.5)
    seen = []
    vit.visual.trunk.blocks[0].register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    vit.train().encode_image(pictures)
    vit.eval().encode_image(pictures)
    assert seen[0] < seen[1]
    for vision in (timm_vision("tf_efficientnet_lite0"), {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 8}):
        model = clip(vision, open_clip.model.CustomTextCLIP)
        drop_patches(model, 0.0)
        with pytest.raises(UserError, match=r"patch_dropout: 0\.3, but this image tower is not a ViT"):
            drop_patches(model, 0.3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_without_a_compiler_the_setting_is_named():
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}),
        pytest.raises(UserError, match=r"compile: torch\.compile does not work here \(.*no-such-compiler.* set compile: false"),
    ):
        compiled(torch.sin, "cpu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_tower_gives_the_same_gradients(monkeypatch):
    # captured as for any backend; the C++ one takes half a minute the first time
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    pictures, plain, fast = torch.randn(2, 3, 32, 32), clip(VIT), clip(VIT)
    expected = gradients(plain, pictures, plain.encode_image)
    found = gradients(fast, pictures, compiled(fast.encode_image, "cpu"))
    assert expected.keys() == found.keys()
    assert all(torch.allclose(expected[each], found[each], atol=1e-6) for each in expected)
