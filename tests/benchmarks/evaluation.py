"""What evaluating one ViT-B-32 costs besides embedding its images: `python -m` this module. Prints seconds; asserts nothing.

The model has random weights and the pictures are made here, in the demo's proportions: six per class, three distinct captions per class,
the prompts of params.yaml. The stage runs as it is, and each part of it is timed meanwhile, so that load on the machine meets all alike.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from assets import artifacts
from assets.clip import encoder
from assets.clip.model import CONFIG, save_weights
from assets.evaluation import stage
from assets.params import Evaluation, read_params
from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.table import writing_rows

MODEL = "ViT-B-32"
PICTURES = 1024  # the model is loaded once for all of them
PER_CLASS = 6
SIZE = 384, 320  # pixels
RECIPE = "base"
LOADING, IMAGES = "loading the model", "embedding the images"
PARTS = (
    (encoder, "load_clip", LOADING),
    (encoder, "encode_images", IMAGES),
    (encoder, "text_features", "embedding the texts"),
    (stage, "score", "scores and their intervals"),
)


def main() -> None:
    settings = read_params()[0].evaluation
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _make_pictures()
        _make_model()
        seconds = _timed(settings)
    total = sum(seconds.values())
    counts = f"{PICTURES:,} pictures, {-(-PICTURES // PER_CLASS)} classes, {len(settings.prompts)} prompts a class"
    print(f"{MODEL}, {counts}, {torch.get_num_threads()} threads")  # noqa: T201
    for part, spent in seconds.items():
        print(f"  {part}: {spent:.2f} s")  # noqa: T201
    print(f"evaluation / embedding the images: {total / seconds[IMAGES]:.3f} ×")  # noqa: T201
    # the model is loaded once whatever the number of pictures
    without = total - seconds[LOADING]
    print(f"without loading the model: {without / seconds[IMAGES]:.3f} ×")  # noqa: T201


def _timed(settings: Evaluation) -> dict[str, float]:
    """Seconds of each part, and of the rest of the stage."""
    seconds = {part: 0.0 for _, _, part in PARTS}

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            result = function(*arguments, **options)
            seconds[part] += time.perf_counter() - begun
            return result

        return call

    for module, name, part in PARTS:
        setattr(module, name, timed(getattr(module, name), part))
    begun = time.perf_counter()
    stage.evaluate(settings, RECIPE)
    seconds["reading, writing and the rest"] = time.perf_counter() - begun - sum(seconds.values())
    return seconds


def _make_pictures() -> None:
    generator = np.random.default_rng(0)
    with artifacts.replacing(artifacts.CURATED_IMAGES) as temporary, writing_rows(temporary, CURATED_SCHEMA) as write:
        for number in range(PICTURES):
            name = f"thing number {number // PER_CLASS}"
            fields = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(fields).resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            known = {"split": "test", "id": f"{number:04}", "image": buffer.getvalue(), "label": name, "class_name": name, "group": None}
            known["captions"] = [f"{name} as people draw it", f"what {name} reminds of", f"{name} in a picture book"]
            known |= {"source": "benchmark", "license": "CC0-1.0", "attribution": "the benchmark", "sha256": f"{number:064}"}
            write(known | {"family": name, "width": SIZE[0], "height": SIZE[1]})
    ids = [f"{number:04}" for number in range(PICTURES)]
    pq.write_table(pa.table({"id": ids, "correlation": pa.array([0.0] * PICTURES, pa.float32())}), artifacts.NEAREST)


def _make_model() -> None:
    torch.manual_seed(0)
    model = open_clip.create_model(MODEL)
    preprocess = {name: value for name, value in open_clip.get_model_preprocess_cfg(model).items() if value is not None}
    directory = artifacts.model_dir(RECIPE)
    directory.mkdir(parents=True)
    save_weights(model, directory)
    config = {"model_cfg": open_clip.get_model_config(MODEL), "preprocess_cfg": preprocess}
    (directory / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    card = {"recipe": RECIPE, "stage": "base_clip", "made_from": [], "params": {}}
    artifacts.write_json(directory / artifacts.MODEL_CARD, card)


if __name__ == "__main__":
    main()
