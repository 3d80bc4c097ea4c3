"""Embeddings of locked towers: computed once, read again from disk, by what determines them; few files stay."""

import io
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from assets import artifacts, embeddings
from assets.clip import load_clip
from assets.clip.encoding import encode_images, encode_texts
from assets.clip.model import CARD, CONFIG, WEIGHTS
from assets.pictures.table import read_images
from assets.training.views import view_embeddings
from tests.models import CONFIGS, WORDS, write_model

STILL = {"rotation_degrees": 0.0, "scale": [1.0, 1.0], "shift": 0.0, "flip": False, "color_mixing": 0.0, "grey": 0.0}
OPTIONS = {"batch_size": 4, "device": "cpu", "precision": "fp32"}
KINDS = sorted(CONFIGS)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A table of 9 training and 2 validation pictures, and a model in `base`."""
    monkeypatch.chdir(tmp_path)
    pictures = []
    for number in range(11):
        buffer = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (36, 36, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    splits = ["train"] * 9 + ["validation"] * 2
    pq.write_table(pa.table({"image": pictures, "split": splits}), tmp_path / "images.parquet", row_group_size=4)
    write_model(tmp_path / "base")
    return tmp_path


@pytest.fixture
def encoded(monkeypatch):
    """How many pictures each pass of the encoder was for."""
    passes, real = [], embeddings.encode_images
    monkeypatch.setattr(embeddings, "encode_images", lambda *given, **named: passes.append(named["total"]) or real(*given, **named))
    return passes


def of_images(workspace, split="train", directory="base", table="t", **options):
    directory = workspace / directory
    model, preprocess, _ = load_clip(directory)
    path = workspace / "images.parquet"
    return embeddings.image_embeddings(directory, model, preprocess, path, split, table_sha256=table, **OPTIONS | options)


def copy_with(workspace, name, change):
    """A copy of the base whose weights went through `change`, with a card of its own."""
    shutil.copytree(workspace / "base", workspace / name)
    weights = load_file(workspace / name / WEIGHTS)
    change(weights)
    save_file(weights, workspace / name / WEIGHTS)
    (workspace / name / CARD).write_text(f'{{"recipe": "{name}"}}\n')
    return workspace / name


def test_they_are_those_of_the_encoder_and_mapped_from_disk(workspace, monkeypatch):
    model, preprocess, _ = load_clip(workspace / "base")
    monkeypatch.setattr(embeddings, "BATCHES_A_CHUNK", 1)  # three chunks
    found = of_images(workspace)
    expected = encode_images(model, preprocess, read_images(workspace / "images.parquet", "train"), total=9, **OPTIONS)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    assert of_images(workspace, "validation").shape == (2, expected.shape[1])
    assert of_images(workspace, "library").shape == (0, expected.shape[1])


def test_once_for_the_same_and_again_for_anything_else(workspace, encoded, monkeypatch):
    np.testing.assert_array_equal(of_images(workspace), of_images(workspace))
    assert encoded == [9]
    of_images(workspace, table="another")
    of_images(workspace, precision="bf16")
    of_images(workspace, batch_size=3)
    assert encoded == [9] * 4
    shutil.copytree(workspace / "base", workspace / "darker")
    config = artifacts.read_json(workspace / "darker" / CONFIG)
    config["preprocess_cfg"]["mean"] = [0.6, 0.6, 0.6]
    artifacts.write_json(workspace / "darker" / CONFIG, config)
    of_images(workspace, directory="darker")
    assert encoded == [9] * 5
    monkeypatch.setattr(embeddings.artifacts, "sha256_of", lambda path: "other code")
    of_images(workspace)
    assert encoded == [9] * 6


def test_models_that_share_a_tower_share_its_embeddings(workspace, encoded):
    def realigned(weights):
        for name in weights:
            if not name.startswith("visual."):
                weights[name] = weights[name] + 1

    def tuned(weights):
        weights["visual.proj"] = weights["visual.proj"] * 2

    copy_with(workspace, "base_rea", realigned)
    copy_with(workspace, "gpr", tuned)
    first = of_images(workspace)
    np.testing.assert_array_equal(of_images(workspace, directory="base_rea"), first)
    assert encoded == [9]
    of_images(workspace, directory="gpr")
    assert encoded == [9, 9]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_those_of_the_encoder_for_every_kind_of_tower(kind, workspace):
    directory = workspace / kind
    write_model(directory, kind)
    model, _, tokenizer = load_clip(directory)
    texts = [" ".join(WORDS[:count]) for count in (3, 1, 2, 5, 4)]
    found = embeddings.text_embeddings(directory, model, tokenizer, texts, **OPTIONS)
    np.testing.assert_allclose(found, encode_texts(model, tokenizer, texts, **OPTIONS), atol=1e-6)
    assert embeddings.text_embeddings(directory, model, tokenizer, [], **OPTIONS).shape == (0, found.shape[1])


@pytest.mark.parametrize("class_of_its_own", [False, True])
@pytest.mark.parametrize("projection", [{"proj_type": "none"}, {"proj_bias": True}], ids=str)
def test_any_projection_of_the_text_tower_and_none(class_of_its_own, projection, workspace, monkeypatch):
    width = CONFIGS["vit"]["text_cfg"]["width"]
    config = CONFIGS["vit"] | {"embed_dim": width, "custom_text": class_of_its_own, "text_cfg": CONFIGS["vit"]["text_cfg"] | projection}
    monkeypatch.setitem(CONFIGS, "other", config)
    directory = workspace / "other"
    write_model(directory, "other")
    model, _, tokenizer = load_clip(directory)
    texts = ["red heart", "a dog in the park"]
    found = embeddings.text_embeddings(directory, model, tokenizer, texts, **OPTIONS)
    np.testing.assert_allclose(found, encode_texts(model, tokenizer, texts, **OPTIONS), atol=1e-6)
    assert of_images(workspace, directory="other").shape == (9, width)


def test_texts_are_encoded_once_for_models_whose_text_towers_differ_in_the_projection_alone(workspace, monkeypatch):
    passes, real = [], embeddings.text_features
    monkeypatch.setattr(
        embeddings,
        "text_features",
        lambda model, tokenizer, texts, **options: passes.append(texts) or real(model, tokenizer, texts, **options),
    )

    def realigned(weights):
        weights["text_projection"] = weights["text_projection"].flip(0)
        weights["logit_scale"] = weights["logit_scale"] + 1

    def deeper(weights):
        weights["ln_final.weight"] = weights["ln_final.weight"] * torch.linspace(1, 2, len(weights["ln_final.weight"]))

    def of_texts(directory, texts):
        model, _, tokenizer = load_clip(directory)
        found = embeddings.text_embeddings(directory, model, tokenizer, texts, **OPTIONS)
        np.testing.assert_allclose(found, encode_texts(model, tokenizer, texts, **OPTIONS), atol=1e-6)

    first, second = ["red heart", "blue dog"], ["blue dog", "red heart"]
    of_texts(workspace / "base", first)
    of_texts(copy_with(workspace, "rea", realigned), first)
    assert passes == [first]
    of_texts(workspace / "base", second)
    of_texts(copy_with(workspace, "deeper", deeper), first)
    assert passes == [first, second, first]


def test_a_pass_that_is_killed_leaves_nothing_that_is_taken_for_whole(workspace, monkeypatch):
    def dies(*given, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embeddings, "encode_images", dies)
        of_images(workspace)
    assert not list(embeddings.FOLDER.iterdir())
    assert np.abs(np.linalg.norm(of_images(workspace), axis=1) - 1).max() < 1e-5


def test_the_files_used_longest_ago_are_removed(workspace, encoded, monkeypatch):
    monkeypatch.setattr(embeddings, "FILES_KEPT", 3)
    for number in range(3):
        of_images(workspace, table=str(number))
        for file in embeddings.FOLDER.iterdir():
            os.utime(file, ns=(file.stat().st_mtime_ns - 10**9,) * 2)
    first = set(embeddings.FOLDER.iterdir())
    of_images(workspace, table="0")  # used again
    of_images(workspace, table="3")
    left = set(embeddings.FOLDER.iterdir())
    assert len(left) == 3
    encoded.clear()
    of_images(workspace, table="0")
    assert not encoded
    assert len(first - left) == 1
    (embeddings.FOLDER / ".images-broken.npy.1.tmp").write_bytes(b"")
    os.utime(embeddings.FOLDER / ".images-broken.npy.1.tmp", ns=(0, 0))
    of_images(workspace, table="0")
    assert not list(embeddings.FOLDER.glob(".*"))


def test_views_are_rows_of_their_picture(workspace):
    directory, path = workspace / "base", workspace / "images.parquet"
    model, preprocess, _ = load_clip(directory)
    given = {"table_sha256": artifacts.sha256_of(path), "seed": 0, **OPTIONS}
    still = view_embeddings(directory, model, path, views=2, augmentation=STILL, **given)
    still = still.reshape(9, 2, -1)
    np.testing.assert_array_equal(still[:, 0], still[:, 1])  # nothing to vary
    centre = torch.stack([preprocess(Image.open(io.BytesIO(data)).crop((2, 2, 34, 34))) for data in read_images(path, "train")])
    with torch.inference_mode():
        expected = model.encode_image(centre, normalize=True).numpy()
    np.testing.assert_allclose(still[:, 0], expected, atol=1e-4)
    moved = view_embeddings(directory, model, path, views=2, augmentation={**STILL, "shift": 0.3}, **given)
    moved = moved.reshape(9, 2, -1)
    assert np.abs(moved[:, 0] - moved[:, 1]).max() > 1e-3
