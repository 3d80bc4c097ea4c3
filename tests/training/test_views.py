"""Augmented views: embeddings in the order of their pictures, computed once; training views normalised as the model wants them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assets.clip.encoder import Encoder
from assets.pictures.split import Split
from assets.pictures.table import read_images
from assets.training import views
from assets.training.augmentation import stored_size
from assets.training.views import training_views, view_embeddings
from tests.models import write_model
from tests.training.tables import png

STILL = {"rotation_degrees": 0.0, "scale": [1.0, 1.0], "shift": 0.0, "flip": False, "color_mixing": 0.0, "grey": 0.0}


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "base")
    return Encoder(tmp_path / "base", device="cpu", precision="fp32", batch_size=4)


@pytest.fixture
def pictures(tmp_path):
    """Nine noisy pictures of 36 pixels, the size at which pictures trained at 32 are kept."""
    assert stored_size(32) == 36
    noise = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for shard, count in enumerate((5, 4)):
        images = [png(noise.integers(0, 256, (36, 36, 3))) for _ in range(count)]
        pq.write_table(pa.table({"image": images, "split": ["train"] * count}), tmp_path / "images" / f"{shard:05}.parquet")
    return Split(tmp_path / "images", "train")


def centre(pictures, preprocess):
    shown = [Image.open(io.BytesIO(data)).crop((2, 2, 34, 34)) for data in read_images(pictures.table, "train")]
    return torch.stack([preprocess(each) for each in shown])


def test_views_are_rows_of_their_picture(encoder, pictures):
    still = view_embeddings(encoder, pictures, views=2, augmentation=STILL, seed=0).reshape(9, 2, -1)
    np.testing.assert_array_equal(still[:, 0], still[:, 1])  # nothing to vary
    with torch.inference_mode():
        expected = encoder.model.encode_image(centre(pictures, encoder.preprocess), normalize=True).numpy()
    np.testing.assert_allclose(still[:, 0], expected, atol=1e-4)
    moved = view_embeddings(encoder, pictures, views=2, augmentation={**STILL, "shift": 0.3}, seed=0).reshape(9, 2, -1)
    assert np.abs(moved[:, 0] - moved[:, 1]).max() > 1e-3


def test_views_are_encoded_once_for_the_same_seed_and_settings(encoder, pictures, monkeypatch):
    passes, real = [], views.kept_rows
    monkeypatch.setattr(views, "kept_rows", lambda *given: real(*given[:-1], lambda rows: passes.append(1) or given[-1](rows)))
    given = {"views": 2, "augmentation": STILL | {"shift": 0.3}, "seed": 0}
    first = view_embeddings(encoder, pictures, **given)
    np.testing.assert_array_equal(view_embeddings(encoder, pictures, **given), first)
    assert len(passes) == 1
    for other in ({"views": 1}, {"augmentation": STILL}, {"seed": 1}):
        view_embeddings(encoder, pictures, **given | other)
    assert len(passes) == 4


def test_training_views_are_what_the_model_s_preprocessing_gives(encoder, pictures):
    batches = training_views(
        pictures.table,
        encoder.model,
        batch_size=4,
        augmentation=STILL,
        seed=0,
        device="cpu",
        classes=None,
        images_per_class=None,
    )
    expected = centre(pictures, encoder.preprocess)
    seen = list(batches(1, 0))
    assert sum(len(rows) for rows, _ in seen) == 8  # full batches only
    for rows, pixels in seen:
        torch.testing.assert_close(pixels, expected[rows], atol=0.02, rtol=0)
    again = list(batches(1, 1))  # the first one done
    assert len(again) == 1
    assert np.array_equal(again[0][0], seen[1][0])
    assert torch.equal(again[0][1], seen[1][1])
