"""The demo's base on a corpus of two classes with two pictures each: nothing to validate on, one class to train on."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from assets import artifacts
from assets.base_clip.demo import make_demo_clip
from assets.clip import load_clip
from assets.clip.encoding import encode_texts
from assets.params import DemoClip


def png(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_without_validation_images_the_last_epoch_is_kept(tmp_path, monkeypatch, checkout):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"{label}/{view}", "image": png(number), "label": label, "class_name": label, "captions": []}
        | {"source": "test", "license": "CC0-1.0", "attribution": "the tests", "split": split}
        | {"width": 32, "height": 32, "sha256": "0" * 64}
        for number, (label, view, split) in enumerate([("a", 0, "train"), ("a", 1, "train"), ("b", 0, "test"), ("b", 1, "test")])
    ]
    artifacts.CURATED.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=artifacts.CURATED_SCHEMA), artifacts.CURATED_IMAGES)
    written = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))["base_clip"]
    settings = DemoClip.model_validate(written | {"image_size": 32, "epochs": 2, "device": "cpu"})
    make_demo_clip(settings, artifacts.CURATED_IMAGES, artifacts.model_dir("base"))
    card = artifacts.read_json(artifacts.model_dir("base") / "model_card.json")
    assert card["validation"] == dict.fromkeys(["validation_text_to_image", "validation_image_to_image", "validation_spread"])
    assert [row["epoch"] for row in card["alignment"]] == [1, 2]
    model, _, tokenizer = load_clip(artifacts.model_dir("base"))
    assert np.isfinite(encode_texts(model, tokenizer, ["a"], batch_size=1, device="cpu", precision="fp32")).all()
