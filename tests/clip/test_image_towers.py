"""Every image tower that open_clip builds has its kind, and what the kind says of it is so. Groups and adapters: test_trainable.py."""

from types import SimpleNamespace

import pytest
import torch

from assets.clip.image_towers import ResNet, Timm, ViT, image_tower_of
from assets.errors import UserError
from tests.models import CONFIGS, write_model

KIND_OF = {"vit": ViT, "custom_text": ViT, "resnet": ResNet, "sigmoid": Timm, "timm_and_hugging_face": Timm}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_kind_of_a_tower(name, tmp_path):
    model = write_model(tmp_path / name, name)
    tower = image_tower_of(model)
    assert type(tower) is KIND_OF[name]
    size = CONFIGS[name]["vision_cfg"]["image_size"]
    assert (tower.size, tower.sides) == (size, (size, size))
    assert tower.normalization == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert model.encode_image(torch.zeros(1, 3, *tower.sides)).shape == (1, CONFIGS[name]["embed_dim"])
    names = {of for of, _ in model.named_parameters()}
    assert tower.projection() <= names
    assert {f"{tower.prefix}{of}" for of, _ in tower.layers.named_parameters()} <= names


def test_a_tower_of_an_unknown_kind_is_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"image tower Linear is not supported; supported are VisionTransformer, ModifiedResNet, TimmModel"):
        image_tower_of(SimpleNamespace(visual=torch.nn.Linear(1, 1)))
