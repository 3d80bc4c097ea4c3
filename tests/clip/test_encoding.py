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
from assets.clip.encoding import ahead, encode_images, encode_texts
from assets.errors import UserError
from assets.pictures.decoding import decode
from tests.models import CONFIGS

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
    together = encode_images(model, preprocess, iter(images), decode, **OPTIONS)
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
    assert encode_images(model, preprocess, [], decode, **OPTIONS).shape == (0, 16)
    assert encode_texts(model, tokenizer, [], **OPTIONS).shape == (0, 16)


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
