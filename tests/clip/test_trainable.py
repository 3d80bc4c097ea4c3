"""Groups of layers and layer-wise decay, for every kind of tower. Adapters: test_lora.py."""

import open_clip
import pytest
import torch

from assets.clip.trainable import layer_groups, learning_rate_shares, trained_parameters, unlock
from assets.errors import UserError
from assets.training.optimizer import layer_decay_groups
from tests.models import CONFIGS, write_model


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


def test_more_groups_than_there_are():
    with pytest.raises(UserError, match=r"image_tower.unlocked_groups: 4 given, .* has 3 groups .* Give 1 to 3"):
        unlock(build("vit"), "image", "last_groups", 4, lora=None)


def test_a_projection_that_is_not_there(tmp_path):
    model = write_model(tmp_path / "sigmoid", "sigmoid")
    with pytest.raises(UserError, match=r"image_tower.trains: .* has no projection"):
        unlock(model, "image", "projection", 1, lora=None)
