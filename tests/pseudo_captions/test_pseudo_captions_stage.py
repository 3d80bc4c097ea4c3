"""The stage on real PNGs and a tiny model of random weights: own captions come first, and what is never found."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets import artifacts
from assets.params import PseudoCaptions
from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.spelling import normalised
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
    min_z=-9.0,
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
    write_rows(ROWS)


def write_rows(rows: list[tuple[str, str, str, list[str]]]) -> None:
    with artifacts.replacing(artifacts.CURATED_IMAGES) as temporary, writing_rows(temporary, CURATED_SCHEMA) as write:
        for seed, (name, split, class_name, captions) in enumerate(rows):
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
        assert row["own"] == [True] * len(own) + [False] * len(found)
        assert row["similarities"][len(own) :] == sorted(row["similarities"][len(own) :], reverse=True)


def test_the_number_of_clusters_has_a_bound():
    make_pseudo_captions(SETTINGS.model_copy(update={"max_clusters": 2}))
    assert len(set(pq.read_table(artifacts.CAPTIONS)["cluster"].to_pylist())) <= 2


def test_the_name_of_another_class_is_never_found_unless_people_wrote_it_of_the_picture():
    """It would be a wrong label. 56 % of the demo's found captions were names of other classes."""
    rows = [(name, split, class_name, [*captions, "RED HEART"] if name == "b" else captions) for name, split, class_name, captions in ROWS]
    write_rows(rows)
    make_pseudo_captions(SETTINGS.model_copy(update={"top_k": 100, "clusters_per_caption": 1.0}))
    words = [normalised(caption) for caption in pq.read_table(artifacts.CAPTIONS)["caption"].to_pylist()]
    of_images = pq.read_table(artifacts.IMAGE_CAPTIONS).to_pylist()
    for row in of_images:
        found = {words[caption] for caption, own in zip(row["caption_ids"], row["own"], strict=True) if not own}
        assert found
        assert not found & {"red heart", "cat face", "sailboat"}
    assert "red heart" in {words[caption] for caption, own in zip(of_images[1]["caption_ids"], of_images[1]["own"], strict=True) if own}


def test_a_limit_that_no_caption_reaches_leaves_the_own_ones_alone():
    make_pseudo_captions(SETTINGS.model_copy(update={"min_z": 99.0}))
    rows = pq.read_table(artifacts.IMAGE_CAPTIONS).to_pylist()
    assert [row["caption_ids"] for row in rows] == OWN
    assert all(all(row["own"]) for row in rows)


def test_a_caption_that_cannot_be_read_is_never_found_and_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """All such captions have one embedding: the picture that it is near to would get one of them at random."""
    shutil.rmtree(artifacts.model_dir("base"))
    write_model(artifacts.model_dir("base"), "timm_and_hugging_face")
    write_rows([(name, split, class_name, ["a dog"]) for name, split, class_name, _ in ROWS])
    (tmp_path / "more.txt").write_text("a red square\n猫\n狗\n", encoding="utf-8")
    make_pseudo_captions(SETTINGS.model_copy(update={"top_k": 100, "clusters_per_caption": 1.0, "extra_corpora": ["more.txt"]}))
    words = pq.read_table(artifacts.CAPTIONS)["caption"].to_pylist()
    rows = pq.read_table(artifacts.IMAGE_CAPTIONS).to_pylist()
    found = {words[caption] for row in rows for caption, own in zip(row["caption_ids"], row["own"], strict=True) if not own}
    assert found == {"a red square"}
    assert "2 of 3 captions of pseudo_captions.extra_corpora cannot be read" in caplog.text
