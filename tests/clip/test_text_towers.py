"""Every text tower that open_clip builds has its kind, and what the kind says of it is so. Columns in use: test_text_encoding.py."""

from types import SimpleNamespace

import pytest
import torch

from assets.clip.text_projection import is_text_projection
from assets.clip.text_towers import HuggingFace, OpenClipText, PartsAtTop, text_tower_of
from assets.errors import UserError
from tests.models import CONFIGS, write_model

KIND_OF = {
    "vit": PartsAtTop,
    "resnet": PartsAtTop,
    "custom_text": OpenClipText,
    "sigmoid": OpenClipText,
    "timm_and_hugging_face": HuggingFace,
}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_kind_of_a_tower(name, tmp_path):
    model = write_model(tmp_path / name, name)
    tower = text_tower_of(model)
    assert type(tower) is KIND_OF[name]
    assert tower.dimension == CONFIGS[name]["embed_dim"]
    own = {of for of, _ in model.named_parameters() if not of.startswith(("visual.", "logit_"))}
    assert {of for of in own if is_text_projection(of)} == tower.projection() != set()
    held = {f"{tower.prefix}{of}" for of, _ in tower.layers.named_parameters()}
    assert {of for of in held if not of.startswith(tower.others or "?")} | tower.projection() == own


def test_a_tower_of_an_unknown_kind_is_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"text tower Linear is not supported; supported are PartsAtTop, OpenClipText, HuggingFace"):
        text_tower_of(SimpleNamespace(text=torch.nn.Linear(1, 1)))
