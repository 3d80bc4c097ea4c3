"""Encoding in batches equals encoding one by one, and what ahead() promises."""

import threading
from io import BytesIO

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from assets.clip.device import resolve_device
from assets.clip.encoding import ahead, encode_images, encode_texts, encode_tokens, used_length
from assets.errors import UserError
from tests.models import CONFIGS, TEXT, write_model

OPTIONS = {"batch_size": 3, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**CONFIGS["vit"])
    return model.eval(), open_clip.image_transform(32, is_train=False), open_clip.get_tokenizer("ViT-B-32")


def png(seed):
    stream = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_images_in_batches_equal_images_one_by_one(tiny):
    model, preprocess, _ = tiny
    images = [png(seed) for seed in range(7)]
    together = encode_images(model, preprocess, iter(images), total=7, **OPTIONS)
    assert together.dtype == np.float32
    with torch.inference_mode():
        for row, data in zip(together, images, strict=True):
            alone = model.encode_image(preprocess(Image.open(BytesIO(data)).convert("RGB"))[None])
            np.testing.assert_allclose(row, normalize(alone, dim=1)[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_texts_keep_their_order(tiny):
    model, _, tokenizer = tiny
    texts = ["a very long caption of a small thing", "a", "a red heart", "b", "the longest of all the captions that are here today"]
    together = encode_texts(model, tokenizer, texts, **OPTIONS)
    with torch.inference_mode():
        for row, text in zip(together, texts, strict=True):
            np.testing.assert_allclose(row, normalize(model.encode_text(tokenizer([text])), dim=1)[0].numpy(), atol=1e-5)


def test_nothing_to_encode_is_an_empty_array(tiny):
    model, preprocess, tokenizer = tiny
    assert encode_images(model, preprocess, [], total=0, **OPTIONS).shape == (0, 16)
    assert encode_texts(model, tokenizer, [], **OPTIONS).shape == (0, 16)


CAPTIONS = ["a red heart in the park", "dog", "the colour grey"]


@pytest.mark.parametrize(
    ("kind", "columns"), [("vit", 8), ("custom_text", 8), ("timm_and_hugging_face", 8), ("sigmoid", 16)]
)  # with the start and end tokens
def test_columns_that_nothing_depends_on_are_left_out_exactly(kind, columns, tmp_path):
    model = write_model(tmp_path / kind, kind).double()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / kind}")
    tokens = tokenizer(CAPTIONS)[:, : model.context_length]
    assert used_length(model, tokens) == columns
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
    used = used_length(model, tokens)
    other = tokens.clone()
    other[:, used:] = 3
    torch.testing.assert_close(model.encode_text(other), model.encode_text(tokens), rtol=1e-12, atol=1e-14)
    assert used == (5 if causal and pool_type in ("argmax", "eos") else 9)


def test_ahead_keeps_order_and_depth():
    drawn, lock = [], threading.Lock()

    def items():
        for number in range(20):
            with lock:
                drawn.append(number)
            yield number

    results = ahead(lambda number: number * number, items(), depth=4)
    for expected in range(20):
        assert next(results) == expected * expected
        assert len(drawn) <= expected + 6


def test_ahead_passes_an_error_on():
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda number: 1 // number, [1, 0, 2], depth=2))


def test_an_absent_device_is_named():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(UserError, match="'cuda:63' is not on this machine"):
        resolve_device("cuda:63")
