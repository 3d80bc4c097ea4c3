"""A small real run for the report to read: drawings in a curated table, evaluations of five models of known quality, histories."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from assets import artifacts, params
from assets.metrics.bootstrap import bootstrap_interval
from assets.metrics.knn import knn_predictions
from assets.metrics.retrieval import average_precisions, hits_at_k
from assets.metrics.similarity import exclude_self
from assets.metrics.zero_shot import zero_shot_predictions
from assets.report.stage import make_report

CLASSES = {  # label → name, group; the names are hostile to HTML and to mathtext, as a user's may be
    "1": ("red square", "shapes"),
    "2": ("<b>blue</b> & 'square'", "shapes"),
    "3": ("price of $5 or $6", "shapes"),
    "4": ("green disc", "discs"),
    "5": ("Ünïcode «disc»", "discs"),
    "6": ("grey disc", "discs"),
}
SOURCES = (
    ("alpha", "CC-BY-SA-4.0", "Alpha Set by Ann, https://example.org/alpha"),
    ("beta", "MIT", "Beta Set by Bob & Co, https://example.org/beta"),
)
MEASURED_WITH: dict[str, Any] = {"seed": 0, "precision": "fp32", "knn_k": 3, "knn_temperature": 0.1}
MEASURED_WITH |= {"bootstrap_samples": 200, "confidence": 0.95, "prompts": ["{}"]}
VIEWS = 4  # images of a class
NOISE = {
    "base": (1.3, 1.0),
    "gpr": (0.3, 1.6),
    "gpr_rea": (0.3, 0.7),
    "mcip": (0.4, 1.0),
    "mcip_rea": (0.4, 0.5),
}  # image tower, text tower


def drawing(number: int, view: int) -> bytes:
    picture = Image.new("RGB", (40 + 8 * view, 40), "white")
    draw = ImageDraw.Draw(picture)
    color = ["red", "blue", "orange", "green", "purple", "grey"][number % 6]
    box = (4 + view, 4, 32 + view, 34)
    if number < 3:
        draw.rectangle(box, fill=color)
    else:
        draw.ellipse(box, fill=color)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def curated_rows(*, groups: bool, captions: bool) -> list[dict[str, Any]]:
    rows = []
    for split, classes in (("train", ("t1", "t2")), ("test", tuple(CLASSES)), ("library", (None,))):
        for number, label in enumerate(classes):
            name, group = CLASSES.get(label or "", (f"class {label}" if label else "", "others"))
            for view in range(VIEWS):
                source, license, attribution = SOURCES[view % 2]
                rows.append(
                    {"id": f"{label or 'library'}-{view}", "image": drawing(number, view), "label": label, "class_name": name}
                    | {"group": group if groups else None, "captions": [f"drawing {number}", "a shape"] if captions else []}
                    | {"source": source, "license": license, "attribution": attribution, "split": split}
                    | {"width": 40 + 8 * view, "height": 40, "sha256": f"{len(rows):064x}"}
                )
    return rows


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_evaluation(recipe: str, rows: list[dict[str, Any]]) -> None:
    labels = np.array([row["label"] for row in rows])
    classes = sorted(set(labels))
    captions = sorted({caption for row in rows for caption in row["captions"]})
    carried = np.array([[caption in row["captions"] for row in rows] for caption in captions], bool).reshape(len(captions), len(rows))
    generator = np.random.default_rng(7)
    centers = generator.normal(size=(len(classes), 8))
    image_noise, text_noise = NOISE[recipe]
    of_class = labels[:, None] == np.array(classes)
    images = unit(of_class @ centers + image_noise * generator.normal(size=(len(rows), 8)))
    names = unit(centers + text_noise * generator.normal(size=centers.shape))
    caption_vectors = unit(carried @ of_class @ centers + text_noise * generator.normal(size=(len(captions), 8)))

    numbers = of_class.argmax(axis=1)
    own = exclude_self(len(images))
    same = labels[:, None] == labels
    precisions = 100 * average_precisions(images, images, same, own)
    first = hits_at_k(images, images, same, 1, own)
    knn = knn_predictions(images, images, numbers, k=3, temperature=0.1, exclude=own) == numbers
    zero_shot = zero_shot_predictions(images, names) == numbers
    name_hits = 100 * hits_at_k(names, images, of_class.T, 5)
    caption_hits = 100 * hits_at_k(caption_vectors, images, carried, 5) if captions else None

    values = {"image_to_image.map": precisions, "image_to_image.recall_at_1": 100 * first, "knn.accuracy": 100.0 * knn}
    values |= {"zero_shot.accuracy": 100.0 * zero_shot, "text_to_image.recall_at_5": name_hits}
    if caption_hits is not None:
        values["text_to_image.caption_recall_at_5"] = caption_hits
    confidence: dict[str, Any] = {"level": 0.95}
    for key, each in values.items():
        confidence[key] = list(bootstrap_interval(each, 200, 0.95, np.random.default_rng(0)))
    mean = {key: round(float(np.mean(each)), 4) for key, each in values.items()}
    average = np.mean([mean[key] for key in ("image_to_image.map", "knn.accuracy", "zero_shot.accuracy", "text_to_image.recall_at_5")])
    confidence["average"] = [round(average - 3, 4), round(average + 3, 4)]
    folder = artifacts.evaluation_dir(recipe)
    artifacts.write_json(
        folder / "metrics.json",
        {
            "recipe": recipe,
            "counts": {"images": len(rows), "classes": len(classes), "captions": len(captions)},
            "image_to_image": {"map": mean["image_to_image.map"], "recall_at_1": mean["image_to_image.recall_at_1"]},
            "knn": {"accuracy": mean["knn.accuracy"]},
            "zero_shot": {"accuracy": mean["zero_shot.accuracy"]},
            "text_to_image": {
                "recall_at_5": mean["text_to_image.recall_at_5"],
                "caption_recall_at_5": mean.get("text_to_image.caption_recall_at_5"),
            },
            "average": round(float(average), 4),
            "confidence": confidence,
        },
    )
    artifacts.write_json(folder / "settings.json", MEASURED_WITH)
    np.save(folder / "image_embeddings.npy", images)
    np.save(folder / "text_embeddings.npy", np.concatenate([names, caption_vectors]).astype(np.float32))
    per_query = {name: [row[name] for row in rows] for name in ("id", "label", "group")}
    per_query |= {"average_precision": precisions, "hit_at_1": first == 1, "knn_correct": knn, "zero_shot_correct": zero_shot}
    group_of = {row["label"]: row["group"] for row in rows}
    per_class = {"label": classes, "class_name": [CLASSES[label][0] for label in classes], "group": [group_of[label] for label in classes]}
    per_class |= {"images": [VIEWS] * len(classes), "recall_at_5": name_hits}
    strings = [("id", pa.string()), ("label", pa.string()), ("group", pa.string())]
    schema = pa.schema([*strings, ("average_precision", pa.float64()), *((n, pa.bool_()) for n in list(per_query)[4:])])
    pq.write_table(pa.table(per_query, schema=schema), folder / "per_query.parquet")
    schema = pa.schema(
        [("label", pa.string()), ("class_name", pa.string()), ("group", pa.string()), ("images", pa.int32()), ("recall_at_5", pa.float64())]
    )
    pq.write_table(pa.table(per_class, schema=schema), folder / "per_class.parquet")


def write_inputs(*, groups: bool = True, captions: bool = True, validation: bool = True) -> None:
    """Everything that the report reads, under the working directory."""
    rows = curated_rows(groups=groups, captions=captions)
    artifacts.CURATED.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=artifacts.CURATED_SCHEMA), artifacts.CURATED_IMAGES)
    rejected = [
        {"id": f"r{number}", "reason": reason, "detail": ""} for number, reason in enumerate(["duplicate", "duplicate", "too_small"])
    ]
    pq.write_table(pa.Table.from_pylist(rejected, schema=artifacts.REJECTED_SCHEMA), artifacts.REJECTED_IMAGES)
    for recipe in artifacts.RECIPES:
        card = {"recipe": recipe, "params": {"seed": 0, "lr": 1e-4}, "inputs": {}}
        artifacts.write_json(artifacts.model_dir(recipe) / "model_card.json", card)
        write_evaluation(recipe, [row for row in rows if row["split"] == "test"])
        if recipe != "base":
            measured = {"validation_image_to_image": 0.4, "validation_text_to_image": None} if validation else {}
            history = [{"epoch": epoch, "loss": 5.0 / epoch, "learning_rate": 1e-4} | measured for epoch in (1, 2, 3)]
            artifacts.write_json(artifacts.history_file(recipe), {"recipe": recipe, "rows": history})
    artifacts.write_json(artifacts.CHAMPION, {"recipe": None, "model_sha256": None, "metrics": None})


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """write_inputs, in a working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return write_inputs


@pytest.fixture(scope="session")
def settings() -> params.Report:
    return params.Report(seed=0, bootstrap_samples=500, queries=3, top_k=4, worst_failures=2, changed_classes=2, map_images=16)


@pytest.fixture(scope="session")
def promotion() -> params.Promotion:
    not_fall: dict[params.Family, float] = {"image_to_image": 0.0, "knn": 0.0, "zero_shot": 0.0, "text_to_image": 0.0}
    return params.Promotion(against="base", must_not_fall=not_fall, must_rise={}, override_reason=None)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, settings: params.Report, promotion: params.Promotion) -> Path:
    """A directory in which the report was made, for tests that only read."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_inputs()
        make_report(settings, promotion, "mcip_rea")
    return root


@pytest.fixture
def report(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run as the working directory; not to be written to."""
    monkeypatch.chdir(finished_run)
    return artifacts.REPORT
