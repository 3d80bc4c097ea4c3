"""Groups of layers, layer-wise decay and adapters, for every kind of tower."""

import open_clip
import pytest
import torch

from assets.clip.lora import SplitAttention, add_adapters, fold_adapters
from assets.clip.model import load_clip
from assets.clip.text_encoding import encode_tokens
from assets.clip.trainable import layer_groups, learning_rate_shares, trained_parameters, unlock
from assets.errors import UserError
from assets.training.optimizer import layer_decay_groups
from tests.models import CONFIGS, write_model

LORA = {"rank": 2, "alpha": 6, "dropout": 0.0}


def build(kind):
    torch.manual_seed(0)
    return open_clip.model.CLIP(**CONFIGS[kind]).eval()


@pytest.fixture(params=CONFIGS)
def kind(request):
    return request.param


def test_the_groups_are_a_partition_of_the_tower(kind, tmp_path):
    model = write_model(tmp_path / kind, kind)
    image = [name for names in layer_groups(model, "image") for name in names]
    text = [name for names in layer_groups(model, "text") for name in names]
    assert len(image) == len(set(image))
    assert set(image) == {name for name, _ in model.named_parameters() if name.startswith("visual.")}
    assert set(text) == {name for name, _ in model.named_parameters() if not name.startswith(("visual.", "logit_"))}


def test_the_groups_are_open_clip_s_own():
    """Of a ViT, of the text tower beside it, and of timm's models; the projection, which open_clip counts as a ViT's last group, apart."""
    for tower, prefix in (("image", "visual."), ("text", "")):
        model = build("vit")
        *layers, projection = layer_groups(model, tower)
        assert len(layers) == 3
        for count in range(1, 4):
            lock = model.lock_image_tower if tower == "image" else model.lock_text_tower
            lock(count + 1)
            unlocked = {name for names in (*layers[-count:], projection) for name in names}
            mine = {name for names in (*layers, projection) for name in names}
            assert {name for name, parameter in model.named_parameters() if parameter.requires_grad and name in mine} == unlocked
        assert all(name.startswith(prefix) for name in projection)


def test_timm_s_groups_are_its_own(tmp_path):
    model = write_model(tmp_path / "timm", "timm_and_hugging_face")
    *layers, projection = layer_groups(model, "image")
    unlock(model, "image", "last_groups", 2, lora=None)
    mine = set(trained_parameters(model, "image"))
    assert mine == {name for names in (*layers[-2:], projection) for name in names}
    model.visual.requires_grad_(True)
    with pytest.warns(FutureWarning, match="timm"):
        model.visual.lock(unlocked_groups=2)
    assert set(trained_parameters(model, "image")) == mine
    assert projection == ["visual.head.proj.weight"]


def test_layer_decay_by_hand():
    model = build("vit")
    shares = learning_rate_shares(model, "image", 0.5)
    assert shares["visual.proj"] == 1
    assert shares["visual.ln_post.weight"] == shares["visual.transformer.resblocks.1.mlp.c_fc.weight"] == 0.5
    assert shares["visual.transformer.resblocks.0.ln_1.bias"] == 0.25
    assert shares["visual.conv1.weight"] == shares["visual.class_embedding"] == 0.125
    unlock(model, "image", "all", 1, lora=None)
    groups = layer_decay_groups(trained_parameters(model, "image"), shares, 0.8, 0.1)
    by_rate = {}
    for group in groups:
        assert all((parameter.ndim > 1) == (group["weight_decay"] == 0.1) for parameter in group["params"])
        by_rate[group["lr"]] = by_rate.get(group["lr"], 0) + len(group["params"])
    assert by_rate == {0.8: 1, 0.4: 14, 0.2: 12, 0.1: 5}
    even = layer_decay_groups(trained_parameters(model, "image"), learning_rate_shares(model, "image", 1.0), 0.8, 0.1)
    in_order = [parameter for parameter in model.visual.parameters() if parameter.ndim > 1]
    assert [id(parameter) for parameter in even[0]["params"]] == [id(parameter) for parameter in in_order]
    assert len(even) == 2


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

    model = build("vit")
    model.transformer.resblocks[1].mlp = Mlp(ReadsWeights(32, 32))
    with pytest.raises(UserError, match=r"lora does not fit .* without calling them \(resblocks.1.mlp.0"):
        add_adapters(model, "text", rank=2, alpha=2, dropout=0.0)


def test_more_groups_than_there_are():
    with pytest.raises(UserError, match=r"image_tower.unlocked_groups: 4 given, .* has 3 groups .* Give 1 to 3"):
        unlock(build("vit"), "image", "last_groups", 4, lora=None)


def test_a_projection_that_is_not_there(tmp_path):
    model = write_model(tmp_path / "sigmoid", "sigmoid")
    with pytest.raises(UserError, match=r"image_tower.trains: .* has no projection"):
        unlock(model, "image", "projection", 1, lora=None)
