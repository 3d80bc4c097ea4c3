"""Features and projection apart equal encode_text as a whole, for both ways in which open_clip keeps a text tower."""

import open_clip
import pytest
import torch

from assets.clip.encoding import text_features
from assets.clip.text_projection import project, without_text_projection
from assets.clip.trainable import layer_groups
from tests.models import CONFIGS


@pytest.mark.parametrize("kind", [open_clip.model.CLIP, open_clip.CustomTextCLIP])
def test_features_then_projection_is_encode_text(kind):
    torch.manual_seed(0)
    model = kind(**CONFIGS["vit"]).eval()
    tokenizer, texts = open_clip.get_tokenizer("ViT-B-32"), ["a red heart", "a", "a dog in a park"]
    with without_text_projection(model):
        features = text_features(model, tokenizer, texts, batch_size=2, device="cpu", precision="fp32")
    assert features.shape == (3, 32)
    projected = project(model, features)
    torch.testing.assert_close(projected, model.encode_text(tokenizer(texts)))
    *_, (weights,) = layer_groups(model, "text")
    projected.sum().backward()
    assert model.get_parameter(weights).grad.abs().sum() > 0


def test_the_projection_comes_back_after_an_error():
    model = open_clip.model.CLIP(**CONFIGS["vit"])
    before = model.text_projection
    with pytest.raises(ZeroDivisionError), without_text_projection(model):
        raise ZeroDivisionError
    assert model.text_projection is before
