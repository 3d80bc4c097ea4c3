"""An encoder's embeddings are the model's, computed once for the same tower, pictures and options, and again for anything else."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from assets import artifacts
from assets.clip import encoder
from assets.clip.encoder import Encoder
from assets.clip.encoding import encode_images, encode_texts
from assets.clip.model import CONFIG, WEIGHTS, load_clip
from assets.errors import UserError
from assets.pictures.decoding import decode
from assets.pictures.split import Split
from assets.pictures.table import read_images
from tests.models import CONFIGS, WORDS, write_model

HOW = {"batch_size": 4, "device": "cpu", "precision": "fp32"}


def png(seed):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (36, 36, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(directory, seeds):
    """Two shards of 9 training and 2 validation pictures."""
    directory.mkdir()
    splits = ["train"] * 9 + ["validation"] * 2
    for number, rows in enumerate((slice(0, 5), slice(5, 11))):
        shard = pa.table({"image": [png(seed) for seed in seeds[rows]], "split": splits[rows]})
        pq.write_table(shard, directory / f"{number:05}.parquet", row_group_size=4)
    return directory


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """The table `images`, and a model in `base`."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "images", range(11))
    write_model(tmp_path / "base")
    return tmp_path


@pytest.fixture
def encoded(monkeypatch):
    """How many pictures each pass of the encoder was for."""
    passes, real = [], encoder.encode_images

    def counted(*given, **named):
        found = real(*given, **named)
        passes.append(len(found))
        return found

    monkeypatch.setattr(encoder, "encode_images", counted)
    return passes


def of_images(workspace, split="train", directory="base", table="images", **how):
    return Encoder(workspace / directory, **HOW | how).images(Split(workspace / table, split))


def copy_with(workspace, name, change):
    """A copy of the base whose weights went through `change`, with a card of its own."""
    shutil.copytree(workspace / "base", workspace / name)
    weights = load_file(workspace / name / WEIGHTS)
    change(weights)
    save_file(weights, workspace / name / WEIGHTS)
    (workspace / name / artifacts.MODEL_CARD).write_text(f'{{"recipe": "{name}"}}\n')
    return workspace / name


def test_embeddings_of_images_are_the_models_and_mapped_from_disk(workspace, monkeypatch):
    model, preprocess, _ = load_clip(workspace / "base")
    monkeypatch.setattr(encoder, "BATCHES_A_CHUNK", 1)  # three chunks
    found = of_images(workspace)
    expected = encode_images(model, preprocess, read_images(workspace / "images", "train"), decode, **HOW)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(Encoder(workspace / "base", **HOW).images_now(Split(workspace / "images", "train")), expected)
    assert of_images(workspace, "validation").shape == (2, expected.shape[1])
    assert of_images(workspace, "library").shape == (0, expected.shape[1])


def test_images_are_encoded_once_for_the_same_and_again_for_anything_else(workspace, encoded, monkeypatch):
    np.testing.assert_array_equal(of_images(workspace), of_images(workspace))
    assert encoded == [9]
    of_images(workspace, precision="bf16")
    of_images(workspace, batch_size=3)
    assert encoded == [9] * 3
    shutil.copytree(workspace / "base", workspace / "darker")
    config = artifacts.read_json(workspace / "darker" / CONFIG)
    config["preprocess_cfg"]["mean"] = [0.6, 0.6, 0.6]
    artifacts.write_json(workspace / "darker" / CONFIG, config)
    of_images(workspace, directory="darker")
    assert encoded == [9] * 4
    monkeypatch.setattr(encoder, "imported_files", lambda *modules: (workspace / "base" / CONFIG,))  # other code
    of_images(workspace)
    assert encoded == [9] * 5


def test_of_a_grown_table_the_new_pictures_alone_are_decoded_and_encoded(workspace, encoded, monkeypatch):
    """One new picture decoded and embedded everything again."""
    before = of_images(workspace)
    write_table(workspace / "grown", [3, 20, *range(3), 21, 8, 4, 5, 6, 7])

    opened, real = [], Split.open
    monkeypatch.setattr(Split, "open", lambda split, item: opened.append(item) or real(split, item))
    found = of_images(workspace, table="grown")
    assert encoded == [9, 2]
    assert opened == [png(20), png(21)]
    np.testing.assert_array_equal(found[[0, 2, 3, 4, 6]], before[[3, 0, 1, 2, 8]])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_code_that_reads_and_opens_the_pictures_counts(workspace, monkeypatch):
    """A changed decoder must not find embeddings of the old one's pixels."""
    seen = []
    monkeypatch.setattr(encoder, "kept_rows", lambda what, determined_by, code, *given: seen.extend(code) or np.zeros(()))
    of_images(workspace)
    assert {"encoding.py", "model.py", "device.py", "table.py", "decoding.py", "kept.py"} <= {path.name for path in seen}
    assert not any("metrics" in path.parts or path.name in ("lora.py", "trainable.py") for path in seen)


def test_pictures_of_a_benchmark_of_ones_own(workspace, encoded):
    class Files:
        def digests(self):
            return [b"5", b"6", b"7"]

        def __len__(self):
            return 3

        def items(self):
            return [5, 6, 7]

        def open(self, item):
            return decode(png(item))

    found = Encoder(workspace / "base", **HOW).images(Files())
    np.testing.assert_allclose(found, of_images(workspace)[5:8], atol=1e-6)
    Encoder(workspace / "base", **HOW).images(Files())
    assert encoded == [3, 9]


def test_models_that_share_a_tower_share_its_embeddings(workspace, encoded):
    def realigned(weights):
        for name in weights:
            if not name.startswith("visual."):
                weights[name] = weights[name] + 1

    def tuned(weights):
        weights["visual.proj"] = weights["visual.proj"] * 2

    copy_with(workspace, "base_rea", realigned)
    copy_with(workspace, "tuned", tuned)
    first = of_images(workspace)
    np.testing.assert_array_equal(of_images(workspace, directory="base_rea"), first)
    assert encoded == [9]
    of_images(workspace, directory="tuned")
    assert encoded == [9, 9]


def test_a_model_that_trains_is_encoded_as_it_is_now(workspace):
    trains = Encoder(workspace / "base", **HOW)
    pictures, texts = Split(workspace / "images", "validation"), ["red heart"]
    before = trains.images_now(pictures), trains.texts_now(texts)
    with torch.no_grad():
        trains.model.visual.proj.add_(torch.randn_like(trains.model.visual.proj))
        trains.model.text_projection.add_(torch.randn_like(trains.model.text_projection))
    assert np.abs(trains.images_now(pictures) - before[0]).max() > 1e-3
    assert np.abs(trains.texts_now(texts) - before[1]).max() > 1e-3


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_texts_are_those_of_the_model_for_every_kind_of_tower(kind, workspace):
    directory = workspace / kind
    write_model(directory, kind)
    model, _, tokenizer = load_clip(directory)
    texts = [" ".join(WORDS[:count]) for count in (3, 1, 2, 5, 4)]
    of_kind = Encoder(directory, **HOW)
    found = of_kind.texts(texts)
    expected = encode_texts(model, tokenizer, texts, **HOW)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(of_kind.texts_now(texts), expected)
    assert of_kind.texts([]).shape == (0, of_kind.dimension) == (0, found.shape[1])


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
    found = Encoder(directory, **HOW).texts(texts)
    np.testing.assert_allclose(found, encode_texts(model, tokenizer, texts, **HOW), atol=1e-6)
    assert of_images(workspace, directory="other").shape == (9, width)


def test_texts_are_encoded_once_for_models_whose_text_towers_differ_in_the_projection_alone(workspace, monkeypatch):
    passes, real = [], encoder.text_features
    monkeypatch.setattr(
        encoder, "text_features", lambda model, tokenizer, texts, **how: passes.append(texts) or real(model, tokenizer, texts, **how)
    )

    def realigned(weights):
        weights["text_projection"] = weights["text_projection"].flip(0)
        weights["logit_scale"] = weights["logit_scale"] + 1

    def deeper(weights):
        weights["ln_final.weight"] = weights["ln_final.weight"] * torch.linspace(1, 2, len(weights["ln_final.weight"]))

    def of_texts(directory, texts):
        model, _, tokenizer = load_clip(directory)
        found = Encoder(directory, **HOW).texts(texts)
        np.testing.assert_allclose(found, encode_texts(model, tokenizer, texts, **HOW), atol=1e-6)

    first, second = ["red heart", "blue dog"], ["blue dog", "red heart"]
    of_texts(workspace / "base", first)
    of_texts(copy_with(workspace, "rea", realigned), first)
    assert passes == [first]
    of_texts(workspace / "base", ["red heart", "a new one", *second])
    of_texts(copy_with(workspace, "deeper", deeper), first)
    assert passes == [first, ["a new one"], first]


def test_a_pass_that_is_killed_goes_on_where_it_was(workspace, encoded, monkeypatch):
    monkeypatch.setattr(encoder, "BATCHES_A_CHUNK", 1)
    encode = encoder.encode_images

    def dies(*given, **named):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return encode(*given, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder, "encode_images", dies)
        of_images(workspace)
    assert encoded == [4, 4]
    assert np.abs(np.linalg.norm(of_images(workspace), axis=1) - 1).max() < 1e-5


def test_a_directory_that_holds_no_model_is_named_when_the_model_is_needed(tmp_path):
    with pytest.raises(UserError, match="is not a model directory"):
        _ = Encoder(tmp_path, **HOW).dimension
