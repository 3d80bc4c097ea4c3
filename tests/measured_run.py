"""A small real run for promotion and the report: drawings in a curated table, and evaluations of five models of known quality.

The stages' own writers make every file but histories and model cards, which no test needs a training for.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from assets import artifacts, params
from assets.curated_images.copies import NOTES_SCHEMA
from assets.curated_images.nearest import NEAREST_SCHEMA
from assets.curated_images.rejection import REJECTED_SCHEMA
from assets.evaluation.made_with import made_with
from assets.evaluation.protocol import score
from assets.evaluations import Evaluation, per_class_table, per_query_table, read_test_split, sibling_classes, write_evaluation
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA
from assets.pictures.table import writing_rows
from assets.promotion.gate import ALWAYS_JUDGED
from assets.promotion.stage import judge_recipes
from assets.recipes import CHAMPION
from assets.report.stage import make_report
from assets.training import selection

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
SIBLING = "3"  # looks like a training class
VIEWS = 4  # images of a class
NOISE = {  # of the vectors of images and of texts
    "base": (1.3, 1.0),
    "base_rea": (1.3, 0.8),
    "gpr": (0.3, 1.6),
    "gpr_rea": (0.3, 0.7),
    "mcip": (0.4, 1.0),
    "mcip_rea": (0.4, 0.5),
}
CHAINS = {
    "base": ["base"],
    "base_rea": ["base", "base_rea"],
    "gpr": ["base", "gpr"],
    "gpr_rea": ["base", "gpr", "gpr_rea"],
    "mcip": ["base", "mcip"],
    "mcip_rea": ["base", "mcip", "mcip_rea"],
}
STAGES = {"base": "base_clip", "gpr": "image_tower", "mcip": "image_tower"} | dict.fromkeys(
    ("base_rea", "gpr_rea", "mcip_rea"), "text_tower"
)
PARAMS = {"seed": 0, "lr": 1e-4}
READABLE = [  # as base_clip writes it
    {"what": "class names", "texts": 8, "looked_at": 8, "lost": 0.0, "unknown_tokens": 0.0, "said": []},
    {"what": "captions", "texts": 1900, "looked_at": 1900, "lost": 0.5, "unknown_tokens": 0.375, "said": ["950 captions <b>|</b> …"]},
]
RECIPES = list(CHAINS)
NOTHING_NEW: dict[str, Any] = {"decision": None, "name": None, "accepted": 0, "new": 0, "rejected": 0, "rows": []}
ABOUT = {recipe: f"what {recipe} is" for recipe in RECIPES}


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
                    | {
                        "group": group if groups else None,
                        "family": label,
                        "captions": [f"drawing {number}", "a shape"] if captions else [],
                    }
                    | {"source": source, "license": license, "attribution": attribution, "split": split}
                    | {"width": 40 + 8 * view, "height": 40, "sha256": f"{len(rows):064x}"}
                )
    return rows


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_model(recipe: str) -> None:
    """A model directory with its card alone, the only part that is read."""
    made_from = [{"recipe": name, "stage": STAGES[name], "params": PARAMS} for name in CHAINS[recipe][:-1]]
    card: dict[str, Any] = {"recipe": recipe, "stage": STAGES[recipe], "made_from": made_from, "params": PARAMS, "inputs": {}}
    if recipe == "base":
        card["readable"] = READABLE
    artifacts.write_json(artifacts.model_dir(recipe) / artifacts.MODEL_CARD, card)


def measure(recipe: str, knn_k: int = 3, prompts: Sequence[str] = ("{}",)) -> None:
    """evaluation@RECIPE with vectors of known quality instead of an encoder's: the stage's own protocol and writers."""
    test = read_test_split()
    generator = np.random.default_rng(7)
    centers = generator.normal(size=(len(test.classes), 8))
    image_noise, text_noise = NOISE[recipe]
    of_class = test.labels[:, None] == np.array(test.classes)
    carried = np.array([[caption in own for own in test.captions_of] for caption in test.captions], bool)
    carried = carried.reshape(len(test.captions), len(test.labels))
    images = unit(of_class @ centers + image_noise * generator.normal(size=(len(test.labels), 8)))
    names = unit(centers + text_noise * generator.normal(size=centers.shape))
    captions = unit(carried @ of_class @ centers + text_noise * generator.normal(size=(len(test.captions), 8)))
    write_measured(recipe, images, names, captions, knn_k, prompts)


def write_measured(
    recipe: str, images: np.ndarray, names: np.ndarray, captions: np.ndarray, knn_k: int = 3, prompts: Sequence[str] = ("{}",)
) -> None:
    test = read_test_split()
    measured_with: dict[str, Any] = {"seed": 0, "precision": "fp32", "knn_k": knn_k, "knn_temperature": 0.1}
    measured_with |= {"bootstrap_samples": 200, "confidence": 0.95, "prompts": list(prompts)}
    siblings = sibling_classes(test, 0.9)
    scores = score(
        images=images,
        classes=np.array([test.classes.index(label) for label in test.labels]),
        names=test.class_names,
        families=test.families,
        siblings=siblings,
        name_embeddings=names,
        name_ensembles=names,
        caption_embeddings=captions,
        caption_images=[np.flatnonzero([caption in own for own in test.captions_of]) for caption in test.captions],
        knn_k=knn_k,
        knn_temperature=0.1,
        samples=200,
        level=0.95,
        generator=np.random.default_rng(0),
    )
    directory = artifacts.model_dir(recipe)
    with_what = made_with(recipe, artifacts.sha256_of(directory), artifacts.read_json(directory / artifacts.MODEL_CARD), measured_with)
    tables = per_query_table(test, siblings, scores.values), per_class_table(test, siblings, scores.values)
    metrics = {"recipe": recipe, **scores.metrics}
    nothing = {"image_to_image": {}, "knn": {}, "zero_shot": {}, "text_to_image": {}, "average": None}
    write_evaluation(
        Evaluation(recipe, metrics, images, np.concatenate([names, captions]), *tables, with_what),
        {"benchmarks": {}, "skipped": {}, "incomplete": {}, "table_1": nothing},
    )


def crown(recipe: str, seen: Sequence[str] = ()) -> dict[str, Any]:
    """What `make promote` and the stage champion leave of a recipe; returns champion.json. `seen`: families of test classes."""
    made_with = artifacts.read_json(artifacts.evaluation_dir(recipe) / "made_with.json")
    row = {key: value for key, value in artifacts.read_json(artifacts.evaluation_dir(recipe) / "metrics.json").items() if key != "counts"}
    told = {"recipe": recipe, "model_sha256": made_with["model_sha256"], "override_reason": None, "settings": made_with["settings"]}
    artifacts.write_json(artifacts.CHAMPION, told | {"metrics": row})
    folder = artifacts.evaluation_dir(CHAMPION)
    shutil.copytree(artifacts.evaluation_dir(recipe), folder, dirs_exist_ok=True)
    for name in ("metrics.json", "made_with.json"):
        artifacts.write_json(folder / name, artifacts.read_json(folder / name) | {"recipe": CHAMPION})
    artifacts.write_json(folder / artifacts.SEEN, {"families": list(seen)})
    return told


def history(value: float | None) -> dict[str, Any]:
    """Of a training of three epochs, as its stage writes it."""
    rows = [
        {"epoch": epoch, "loss": 5.0 / epoch if epoch else None, "validation_image_to_image": value, "validation_search": value}
        for epoch in range(4)
    ]
    kept = selection.kept(
        rows,
        "search",
        start_is_candidate=True,
        cannot_choose=None,
        validated_on="40 of 40 validation pictures search, of 20 classes; training sees pictures of none of them",
    )
    return {"rows": rows, "kept": kept.as_json()}


def write_source(rows: list[dict[str, Any]]) -> None:
    """The source of the curated rows, with three more pictures that were rejected, and what was noted of others."""
    first, second = rows[0], rows[1]
    more = [
        first | {"id": "r0", "class_name": "a copy"},
        first | {"id": "r1", "class_name": "another <copy>"},
        first | {"id": "r2", "image": b"no picture", "class_name": "broken"},
    ]
    with artifacts.replacing(artifacts.SOURCE_IMAGES) as folder, writing_rows(folder, IMAGES_SCHEMA) as add:
        for row in sorted([*rows, *more], key=lambda each: each["id"]):
            add({name: row.get(name) for name in IMAGES_SCHEMA.names})
    rejected = [
        *({"id": name, "reason": "duplicate", "detail": f"same pixels as {first['id']}", "other": first["id"]} for name in ("r0", "r1")),
        {"id": "r2", "reason": "undecodable", "detail": "it begins with b'no pictu'", "other": None},
    ]
    pq.write_table(pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA), artifacts.REJECTED_IMAGES)
    notes = [
        {"id": second["id"], "note": "near_duplicate", "detail": f"looks like {first['id']}", "other": first["id"]},
        {"id": second["id"], "note": "several_frames", "detail": "it moves", "other": None},
    ]
    pq.write_table(pa.Table.from_pylist(notes, schema=NOTES_SCHEMA), artifacts.NOTES)
    holds = {"expectation": "expect_column_values_to_not_be_null", "meaning": "id is never null", "success": True, "unexpected_count": 0}
    artifacts.write_json(artifacts.EXPECTATIONS, {"statistics": {"evaluated": 1, "successful": 1}, "results": [holds]})


def write_inputs(*, groups: bool = True, captions: bool = True, validation: bool = True) -> None:
    """Everything that promotion and the report read, under the working directory."""
    with artifacts.replacing(artifacts.CURATED_IMAGES) as folder, writing_rows(folder, CURATED_SCHEMA) as add:
        rows = curated_rows(groups=groups, captions=captions)
        for row in rows:
            add(row)
    nearest = [
        {"id": row["id"], "nearest": f"t{1 + view % 2}-{view % VIEWS}"}
        | {"correlation": 0.95 if row["label"] == SIBLING and view % 2 else 0.5, "difference": 0.1}
        for view, row in enumerate(row for row in rows if row["split"] == "test")
    ]
    pq.write_table(pa.Table.from_pylist(nearest, schema=NEAREST_SCHEMA), artifacts.NEAREST)
    artifacts.write_json(artifacts.DROP, NOTHING_NEW)
    write_source(rows)
    for recipe in RECIPES:
        write_model(recipe)
        measure(recipe)
        if recipe != "base":
            artifacts.write_json(artifacts.history_file(recipe), {"recipe": recipe, **history(0.4 if validation else None)})
    artifacts.write_json(artifacts.CHAMPION, {"recipe": None, "model_sha256": None, "metrics": None})


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """write_inputs, in a working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return write_inputs


@pytest.fixture(scope="session")
def settings() -> params.Report:
    return params.Report(seed=0, queries=3, top_k=4, worst_failures=2, changed_classes=2, siblings=2, map_images=16)


@pytest.fixture(scope="session")
def promotion() -> params.Promotion:
    not_fall = dict.fromkeys(ALWAYS_JUDGED, 0.0)
    return params.Promotion(
        recipe="mcip_rea",
        pairs=[["mcip_rea", "base_rea"], ["mcip_rea", "gpr_rea"]],
        against="base",
        seed=0,
        bootstrap_samples=500,
        must_not_fall=not_fall,
        must_rise={},
        override_reason=None,
    )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, settings: params.Report, promotion: params.Promotion) -> Path:
    """A directory in which the recipes were judged and the report was made, for tests that only read."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_inputs()
        judge_recipes(promotion, RECIPES)
        make_report(settings, promotion, ABOUT, RECIPES)
    return root


@pytest.fixture
def report(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run as the working directory; not to be written to."""
    monkeypatch.chdir(finished_run)
    return artifacts.REPORT
