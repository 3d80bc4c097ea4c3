"""Adapters, for every kind of tower: they add their product and nothing else, and leave a plain model."""

import open_clip
import pytest
import torch

from assets.clip.lora import SplitAttention, add_adapters, fold_adapters
from assets.clip.model import load_clip
from assets.clip.text_encoding import encode_tokens
from assets.clip.trainable import layer_groups, trained_parameters, unlock
from assets.errors import UserError
from tests.models import CONFIGS, write_model

LORA = {"rank": 2, "alpha": 6, "dropout": 0.0}


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize(
    ("kind", "linear_maps"), [("vit", (8, 8)), ("sigmoid", (24, 8)), ("timm_and_hugging_face", (0, 12)), ("resnet", (0, 8))]
)
def test_adapters_add_their_product_and_leave_a_plain_model(kind, linear_maps, tower, tmp_path):
    plain = write_model(tmp_path / kind, kind).double()
    model = load_clip(tmp_path / kind)[0].double()
    count = linear_maps[tower == "text"]
    model.requires_grad_(False)
    if not count:
        with pytest.raises(UserError, match=rf"{tower}_tower.trains: lora .* has none"):
            unlock(model, tower, "lora", 1, LORA)
        return
    unlock(model, tower, "lora", 1, LORA)
    model.double()
    trained = trained_parameters(model, tower)
    assert sum("lora_B" in name for name in trained) == count
    assert {name for name in trained if "lora_" not in name} == set(layer_groups(plain, tower)[-1])
    tokens = torch.randint(5, 18, (2, plain.context_length))
    side = torch.Size(plain.visual.image_size if isinstance(plain.visual.image_size, tuple) else [plain.visual.image_size] * 2)
    pixels = torch.randn(2, 3, *side, dtype=torch.float64)

    def encode(some):
        return some.encode_image(pixels) if tower == "image" else encode_tokens(some, tokens, "cpu")

    torch.testing.assert_close(encode(model), encode(plain))  # an adapter starts as no change
    encode(model).square().sum().backward()
    assert all(parameter.grad is not None for parameter in trained.values())
    factors = {}
    with torch.no_grad():
        for name, parameter in trained.items():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 10)
                layer, factor = name.removesuffix(".default.weight").rsplit(".", 1)
                factors.setdefault(layer, {})[factor] = parameter.detach().clone()
    adapted = encode(model)
    fold_adapters(model)
    torch.testing.assert_close(encode(model), adapted)
    assert not torch.allclose(adapted, encode(plain))
    before, after = plain.state_dict(), model.state_dict()
    assert list(after) == list(before)
    products = {layer.replace("in_proj", "in_proj_weight"): 3.0 * part["lora_B"] @ part["lora_A"] for layer, part in factors.items()}
    for name in before:
        product = products.get(name, products.get(name.removesuffix(".weight"), torch.zeros(())))
        torch.testing.assert_close(after[name], before[name] + product if product.ndim else before[name])
        assert product.ndim or torch.equal(after[name], before[name])


def test_split_attention_is_multihead_attention():
    torch.manual_seed(0)
    attention = torch.nn.MultiheadAttention(24, 3, batch_first=True).double().eval()
    torch.nn.init.normal_(attention.in_proj_bias)
    inputs = torch.randn(2, 5, 24, dtype=torch.float64)
    causal = torch.full((5, 5), -torch.inf, dtype=torch.float64).triu(1)
    for mask in (None, causal, causal.repeat(6, 1, 1)):
        expected, _ = attention(inputs, inputs, inputs, need_weights=False, attn_mask=mask)
        found, _ = SplitAttention(attention)(inputs, inputs, inputs, need_weights=False, attn_mask=mask)
        torch.testing.assert_close(found, expected)


def test_an_adapter_that_would_never_be_used_is_refused():
    class ReadsWeights(torch.nn.Linear):
        def forward(self, inputs):
            return torch.nn.functional.linear(inputs, self.weight, self.bias)

    class Mlp(torch.nn.Sequential):
        def forward(self, inputs):
            return torch.nn.functional.linear(inputs, self[0].weight, self[0].bias)

    model = open_clip.model.CLIP(**CONFIGS["vit"]).eval()
    model.transformer.resblocks[1].mlp = Mlp(ReadsWeights(32, 32))
    with pytest.raises(UserError, match=r"lora does not fit .* without calling them \(resblocks.1.mlp.0"):
        add_adapters(model, "text", rank=2, alpha=2, dropout=0.0)
