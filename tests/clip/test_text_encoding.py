"""Texts encoded without what their embeddings do not depend on are encoded exactly, gradients included."""

import open_clip
import pytest
import torch

from assets.clip.text_encoding import encode_tokens
from assets.clip.text_towers import text_tower_of
from tests.models import CONFIGS, TEXT, write_model

CAPTIONS = ["a red heart in the park", "dog", "the colour grey"]


@pytest.mark.parametrize(
    ("kind", "columns"), [("vit", 8), ("custom_text", 8), ("timm_and_hugging_face", 8), ("sigmoid", 16)]
)  # with the start and end tokens
def test_columns_that_nothing_depends_on_are_left_out_exactly(kind, columns, tmp_path):
    model = write_model(tmp_path / kind, kind).double()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / kind}")
    tokens = tokenizer(CAPTIONS)[:, : model.context_length]
    tower = text_tower_of(model)
    assert tower.used_length(tokens, tower.ends_of_text(tokens)) == columns
    whole = model.encode_text(tokens)
    torch.testing.assert_close(encode_tokens(model, tokens, "cpu"), whole, rtol=1e-12, atol=1e-14)
    assert whole.abs().max() > 1e-3

    def gradients(encoded):
        model.zero_grad()
        encoded.square().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    expected, found = gradients(model.encode_text(tokens)), gradients(encode_tokens(model, tokens, "cpu"))
    assert expected.keys() == found.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("pool_type", ["argmax", "eos", "first", "last"])
@pytest.mark.parametrize("causal", [True, False])
def test_what_the_tokens_after_the_end_are_matters_only_where_no_column_is_left_out(pool_type, causal):
    torch.manual_seed(0)
    text = TEXT | {"context_length": 9, "vocab_size": 20, "pool_type": pool_type, "eos_id": 19, "no_causal_mask": not causal}
    model = open_clip.CustomTextCLIP(**CONFIGS["vit"] | {"text_cfg": text}).double().eval()
    tokens = torch.tensor([[1, 5, 19, 0, 0, 0, 0, 0, 0], [1, 5, 7, 4, 19, 0, 0, 0, 0]])
    tower = text_tower_of(model)
    used = tower.used_length(tokens, tower.ends_of_text(tokens))
    other = tokens.clone()
    other[:, used:] = 3
    torch.testing.assert_close(model.encode_text(other), model.encode_text(tokens), rtol=1e-12, atol=1e-14)
    assert used == (5 if causal and pool_type in ("argmax", "eos") else 9)


@pytest.mark.parametrize("pool_type", ["argmax", "eos"])
@pytest.mark.parametrize("recomputed", [True, False])
@pytest.mark.parametrize(
    "text",
    [{}, {"ls_init_value": 0.5}, {"qk_norm": True}, {"scale_attn": True}, {"proj_bias": True}, {"proj_type": "none"}, {"layers": 1}],
    ids=str,
)
def test_the_last_block_at_the_end_of_text_alone_gives_the_same(text, recomputed, pool_type):
    torch.manual_seed(0)
    text = TEXT | {"context_length": 9, "vocab_size": 20, "pool_type": pool_type, "eos_id": 19} | text
    model = open_clip.CustomTextCLIP(**CONFIGS["vit"] | {"text_cfg": text}).double()
    tokens = torch.tensor([[1, 5, 19, 0, 0, 0, 0, 0, 0], [1, 5, 7, 4, 6, 8, 2, 3, 19], [1, 19, 0, 0, 0, 0, 0, 0, 0]])
    weights = [parameter for parameter in model.text.parameters() if parameter.requires_grad]
    whole = model.encode_text(tokens)
    model.text.set_grad_checkpointing(recomputed)  # open_clip's own cannot with every block
    short = encode_tokens(model, tokens, "cpu")
    torch.testing.assert_close(short, whole, rtol=1e-12, atol=1e-14)
    for of_short, of_whole in zip(*(torch.autograd.grad(each.pow(3).sum(), weights) for each in (short, whole)), strict=True):
        torch.testing.assert_close(of_short, of_whole, rtol=1e-10, atol=1e-12)
