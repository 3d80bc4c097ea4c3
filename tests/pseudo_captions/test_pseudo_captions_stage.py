"""The stage on real PNGs and a tiny model of random weights: own captions come first, and the number of clusters has its bound."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets import artifacts
from assets.params import PseudoCaptions
from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.table import writing_rows
from assets.pseudo_captions.stage import CAPTIONS_SCHEMA, IMAGE_CAPTIONS_SCHEMA, make_pseudo_captions
from tests.models import write_model

SETTINGS = PseudoCaptions(
    seed=0,
    device="cpu",
    precision="fp32",
    extra_corpora=[],
    clusters_per_caption=0.7,
    max_clusters=65536,
    top_k=2,
    min_similarity=-1.0,
)
# (id, split, class name, captions): the test picture's words are in no corpus
ROWS = [
    ("a", "train", "red heart", ["love", "Red  Heart"]),
    ("b", "train", "cat face", ["animal", "pet", "whiskers"]),
    ("c", "train", "sailboat", ["ship", "sea", "wind", "summer"]),
    ("d", "test", "zebra", ["stripes"]),
]
CORPUS = ["love", "Red  Heart", "animal", "pet", "whiskers", "cat face", "ship", "sea", "wind", "summer", "sailboat"]
OWN = [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9, 10]]


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(artifacts.model_dir("base"))
    with artifacts.replacing(artifacts.CURATED_IMAGES) as temporary, writing_rows(temporary, CURATED_SCHEMA) as write:
        for seed, (name, split, class_name, captions) in enumerate(ROWS):
            known = {"id": name, "split": split, "label": class_name, "class_name": class_name, "group": None, "captions": captions}
            known |= {"source": "test", "license": "CC0-1.0", "attribution": "the tests"}
            write(known | {"image": png(seed), "width": 32, "height": 32, "sha256": f"{seed:064}"})


def test_what_it_writes():
    make_pseudo_captions(SETTINGS)
    captions, of_images = pq.read_table(artifacts.CAPTIONS), pq.read_table(artifacts.IMAGE_CAPTIONS)
    assert (captions.schema, of_images.schema) == (CAPTIONS_SCHEMA, IMAGE_CAPTIONS_SCHEMA)
    assert captions["caption"].to_pylist() == CORPUS
    assert captions["caption_id"].to_pylist() == list(range(len(CORPUS)))
    assert of_images["id"].to_pylist() == ["a", "b", "c"]
    clusters = captions["cluster"].to_numpy()
    assert len(set(clusters)) > 3
    for own, row in zip(OWN, of_images.to_pylist(), strict=True):
        assert row["caption_ids"][: len(own)] == own
        found = row["caption_ids"][len(own) :]
        assert len(found) <= SETTINGS.top_k
        assert len({*clusters[found]} - {*clusters[own]}) == len(found)  # one per cluster, none of an own one's
        assert len(row["similarities"]) == len(row["caption_ids"])
        assert row["similarities"][len(own) :] == sorted(row["similarities"][len(own) :], reverse=True)


def test_the_number_of_clusters_has_a_bound():
    make_pseudo_captions(SETTINGS.model_copy(update={"max_clusters": 2}))
    assert len(set(pq.read_table(artifacts.CAPTIONS)["cluster"].to_pylist())) <= 2
