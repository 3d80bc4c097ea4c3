"""Features and projection apart equal encode_text as a whole, for both ways in which open_clip keeps a text tower."""

import open_clip
import pytest
import torch

from assets.clip.encoding import text_features
from assets.clip.text_projection import project, text_projection_parameters, without_text_projection

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1}


@pytest.mark.parametrize("kind", [open_clip.model.CLIP, open_clip.CustomTextCLIP])
def test_features_then_projection_is_encode_text(kind):
    torch.manual_seed(0)
    model = kind(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT).eval()
    tokenizer, texts = open_clip.get_tokenizer("ViT-B-32"), ["a red heart", "a", "a dog in a park"]
    with without_text_projection(model):
        features = text_features(model, tokenizer, texts, batch_size=2, device="cpu", precision="fp32")
    assert features.shape == (3, 24)
    projected = project(model, features)
    torch.testing.assert_close(projected, model.encode_text(tokenizer(texts)))
    (weights,) = text_projection_parameters(model).values()
    projected.sum().backward()
    assert weights.grad.abs().sum() > 0


def test_the_projection_comes_back_after_an_error():
    model = open_clip.model.CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT)
    before = model.text_projection
    with pytest.raises(ZeroDivisionError), without_text_projection(model):
        raise ZeroDivisionError
    assert model.text_projection is before
