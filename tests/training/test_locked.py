"""Embeddings of a locked tower: computed once, read again from disk, by what determines them; few files stay."""

import os

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assets.clip.encoding import encode_images
from assets.clip.pictures import read_images
from assets.training import locked

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
STILL = {"rotation_degrees": 0.0, "scale": [1.0, 1.0], "shift": 0.0, "flip": False, "color_mixing": 0.0, "grey": 0.0}
OPTIONS = {"batch_size": 4, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    import io

    monkeypatch.chdir(tmp_path)
    pictures = []
    for number in range(11):
        buffer = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (18, 18, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    splits = ["train"] * 9 + ["validation"] * 2
    pq.write_table(pa.table({"image": pictures, "split": splits}), tmp_path / "images.parquet", row_group_size=4)
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**CONFIG).eval().requires_grad_(False)
    open_clip.model.set_model_preprocess_cfg(model, {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [16, 16], "resize_mode": "squash"})
    preprocess = open_clip.image_transform(16, is_train=False, mean=[0.5] * 3, std=[0.5] * 3, resize_mode="squash")
    return model, preprocess, tmp_path / "images.parquet"


def embeddings(corpus, split="train", **inputs):
    model, preprocess, path = corpus
    return locked.image_embeddings(model, preprocess, path, split, inputs={"model": "m", "table": "t"} | inputs, **OPTIONS)


def test_they_are_those_of_the_encoder_and_mapped_from_disk(corpus, monkeypatch):
    model, preprocess, path = corpus
    monkeypatch.setattr(locked, "BATCHES_A_CHUNK", 1)  # three chunks
    found = embeddings(corpus)
    expected = encode_images(model, preprocess, read_images(path, "train"), total=9, **OPTIONS)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    assert embeddings(corpus, "validation").shape == (2, 8)
    assert embeddings(corpus, "library").shape == (0, 8)


def test_once_for_the_same_and_again_for_anything_else(corpus, monkeypatch):
    calls, real = [], locked.encode_images
    monkeypatch.setattr(locked, "encode_images", lambda *given, **named: calls.append(1) or real(*given, **named))
    first = embeddings(corpus)
    np.testing.assert_array_equal(first, embeddings(corpus))
    assert len(calls) == 1
    embeddings(corpus, model="another")
    embeddings(corpus, table="another")
    monkeypatch.setitem(OPTIONS, "precision", "bf16")
    embeddings(corpus)
    assert len(calls) == 4
    monkeypatch.setattr(locked.artifacts, "sha256_of", lambda path: "other code")
    embeddings(corpus)
    assert len(calls) == 5


def test_a_pass_that_is_killed_leaves_nothing_that_is_taken_for_whole(corpus, monkeypatch):
    def dies(*given, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(locked, "encode_images", dies)
        embeddings(corpus)
    assert not list(locked.FOLDER.iterdir())
    assert np.abs(np.linalg.norm(embeddings(corpus), axis=1) - 1).max() < 1e-5


def test_the_files_used_longest_ago_are_removed(corpus, monkeypatch):
    monkeypatch.setattr(locked, "FILES_KEPT", 3)
    for number in range(3):
        embeddings(corpus, table=str(number))
        for file in locked.FOLDER.iterdir():
            os.utime(file, ns=(file.stat().st_mtime_ns - 10**9,) * 2)
    first = set(locked.FOLDER.iterdir())
    embeddings(corpus, table="0")  # used again
    embeddings(corpus, table="3")
    left = set(locked.FOLDER.iterdir())
    assert len(left) == 3
    calls, real = [], locked.encode_images
    monkeypatch.setattr(locked, "encode_images", lambda *given, **named: calls.append(1) or real(*given, **named))
    embeddings(corpus, table="0")
    assert not calls
    assert len(first - left) == 1
    (locked.FOLDER / ".images-broken.npy.1.tmp").write_bytes(b"")
    os.utime(locked.FOLDER / ".images-broken.npy.1.tmp", ns=(0, 0))
    embeddings(corpus, table="0")
    assert not list(locked.FOLDER.glob(".*"))


def test_views_are_rows_of_their_picture(corpus):
    model, preprocess, path = corpus
    given = {"inputs": {"model": "m"}, "seed": 0, **OPTIONS}
    still = locked.view_embeddings(model, path, views=2, augmentation=STILL, **given).reshape(9, 2, 8)
    np.testing.assert_array_equal(still[:, 0], still[:, 1])  # nothing to vary
    centre = torch.stack(
        [preprocess(Image.open(__import__("io").BytesIO(data)).crop((1, 1, 17, 17))) for data in read_images(path, "train")]
    )
    with torch.inference_mode():
        expected = model.encode_image(centre, normalize=True).numpy()
    np.testing.assert_allclose(still[:, 0], expected, atol=1e-4)
    moved = locked.view_embeddings(model, path, views=2, augmentation={**STILL, "shift": 0.3}, **given).reshape(9, 2, 8)
    assert np.abs(moved[:, 0] - moved[:, 1]).max() > 1e-3


def test_texts_by_their_words(corpus, monkeypatch):
    model, _, _ = corpus
    calls = []

    def encode(model, tokenizer, texts, **options):
        calls.append(texts)
        return np.eye(8, dtype=np.float32)[: len(texts)]

    monkeypatch.setattr(locked, "encode_texts", encode)
    for texts in (["a", "b"], ["a", "b"], ["b", "a"]):
        assert locked.text_embeddings(model, None, texts, inputs={"model": "m"}, **OPTIONS).shape == (2, 8)
    assert calls == [["a", "b"], ["b", "a"]]
