"""Stage evaluation@RECIPE: encode the test split with models/<recipe>, measure, write data/evaluation/<recipe>/.

What is measured and how is protocol.py's, and on public benchmarks that of the package benchmarks.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts
from assets.clip import load_clip
from assets.clip.device import resolve_device
from assets.clip.encoding import encode_opened, encode_texts
from assets.embeddings import image_embeddings, text_embeddings
from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Pictures, read_picture
from assets.evaluation.benchmarks.registry import KNN_K, KNN_TEMPERATURE
from assets.evaluation.benchmarks.run import find_benchmarks, measure_benchmarks
from assets.evaluation.protocol import Scores, score
from assets.metrics.health import unit_norm
from assets.metrics.zero_shot import prompt_ensemble
from assets.params import Evaluation
from assets.pictures.table import read_rows

logger = logging.getLogger(__name__)

NOT_OF_THE_NUMBERS = {"device", "batch_size", "benchmarks_root"}  # benchmarks have protocols of their own


def evaluate(settings: Evaluation, recipe: str) -> None:
    """Write metrics.json and benchmarks.json (percent), image_embeddings.npy, text_embeddings.npy, per_query.parquet, per_class.parquet,
    settings.json.

    image_embeddings: float32 [N, d], in test order. text_embeddings: float32 [C + T, d], the class names as they are, in the order of the
    labels, then the distinct captions in their order. per_query: N rows in test order; per_class: C rows in the order of the labels.
    settings.json: the settings that the numbers of metrics.json follow from.
    """
    rows = read_rows(artifacts.CURATED_IMAGES, "test")
    labels = rows["label"].to_pylist()
    _check_test_split(labels)
    benchmarks = find_benchmarks(Path(settings.benchmarks_root))  # a wrong layout is told before hours of encoding
    classes = sorted(set(labels))
    name_of = dict(zip(labels, rows["class_name"].to_pylist(), strict=True))
    names = [name_of[label] for label in classes]
    images_of = _images_of_captions(rows["captions"].to_pylist())
    captions = sorted(images_of)
    number_of = {label: number for number, label in enumerate(classes)}
    class_numbers = np.array([number_of[label] for label in labels])

    directory = artifacts.model_dir(recipe)
    device = resolve_device(settings.device)
    model, preprocess, tokenizer = load_clip(directory, device)
    options: dict[str, Any] = {"batch_size": settings.batch_size, "device": device, "precision": settings.precision}
    table_sha256 = artifacts.sha256_of(artifacts.CURATED_IMAGES)
    images = image_embeddings(directory, model, preprocess, artifacts.CURATED_IMAGES, "test", table_sha256=table_sha256, **options)
    prompted = [[prompt.replace("{}", name) for prompt in settings.prompts] for name in names]
    texts = sorted({*names, *captions, *(text for own in prompted for text in own)})  # each is encoded once
    encoded = text_embeddings(directory, model, tokenizer, texts, **options)
    _check_images(images, rows["id"].to_pylist(), directory)
    _check_directions(encoded, texts, directory)
    row_of = {text: row for row, text in enumerate(texts)}
    name_embeddings, caption_embeddings = (encoded[[row_of[text] for text in each]] for each in (names, captions))

    scores = score(
        images=images,
        classes=class_numbers,
        names=names,
        name_embeddings=name_embeddings,
        name_ensembles=prompt_ensemble(encoded[[[row_of[text] for text in own] for own in prompted]]),
        caption_embeddings=caption_embeddings,
        caption_images=[np.array(images_of[caption]) for caption in captions],
        knn_k=settings.knn_k,
        knn_temperature=settings.knn_temperature,
        samples=settings.bootstrap_samples,
        level=settings.confidence,
        generator=np.random.default_rng(settings.seed),
    )

    def encode_pictures(pictures: Pictures) -> np.ndarray:
        rows, opened = range(len(pictures)), functools.partial(read_picture, pictures)
        embeddings = encode_opened(model, preprocess, rows, opened, total=len(pictures), **options)
        _check_directions(embeddings, pictures.names, directory)
        return embeddings

    def encode_strings(texts: Sequence[str]) -> np.ndarray:
        embeddings = encode_texts(model, tokenizer, texts, **options)
        _check_directions(embeddings, texts, directory)
        return embeddings

    on_benchmarks = measure_benchmarks(benchmarks, encode_pictures, encode_strings, knn_k=KNN_K, knn_temperature=KNN_TEMPERATURE)

    folder = artifacts.evaluation_dir(recipe)
    _save(folder / "image_embeddings.npy", images)
    _save(folder / "text_embeddings.npy", np.concatenate([name_embeddings, caption_embeddings]))
    _write(folder / "per_query.parquet", _per_query(rows, scores))
    _write(folder / "per_class.parquet", _per_class(rows, classes, names, class_numbers, scores))
    artifacts.write_json(folder / "metrics.json", {"recipe": recipe, **scores.metrics})
    artifacts.write_json(folder / "benchmarks.json", on_benchmarks)
    artifacts.write_json(folder / "settings.json", settings.model_dump(exclude=NOT_OF_THE_NUMBERS))
    logger.info("%s", _summary(recipe, scores.metrics))


def _check_test_split(labels: list[str]) -> None:
    if len(set(labels)) == len(labels):  # also where there are none
        raise UserError(
            f"the test split of {artifacts.CURATED_IMAGES} has {len(labels)} images of as many classes; retrieval needs a class with two."
            " Add images, raise curated_images.test_fraction or choose another curated_images.seed."
        )


def _images_of_captions(captions: list[list[str]]) -> dict[str, list[int]]:
    images_of: dict[str, list[int]] = {}
    for row, own in enumerate(captions):
        for caption in dict.fromkeys(own):
            images_of.setdefault(caption, []).append(row)
    return images_of


def _check_images(embeddings: np.ndarray, ids: Sequence[str], directory: Path) -> None:
    """As `_check_directions`, but some blank pictures, in which the model sees nothing, stop no evaluation: they count as misses."""
    blank = np.flatnonzero(~embeddings.any(axis=1))
    if 0 < len(blank) < len(ids):
        logger.warning("%s gives %d of %d test images a zero embedding, first %r: misses", directory, len(blank), len(ids), ids[blank[0]])
        embeddings, ids = np.delete(embeddings, blank, axis=0), np.delete(np.array(ids, dtype=object), blank).tolist()
    _check_directions(embeddings, ids, directory)


def _check_directions(embeddings: np.ndarray, names: Sequence[str], directory: Path) -> None:
    wrong = np.flatnonzero(~unit_norm(embeddings))
    if len(wrong):
        raise UserError(
            f"{directory} gives no usable embedding (NaN, infinite or zero) for {len(wrong)} of {len(names)} inputs,"
            f" first {names[wrong[0]]!r}. With evaluation.precision bf16 try fp32; else the model is broken:"
            " train it again with a lower learning rate."
        )


def _per_query(rows: pa.Table, scores: Scores) -> pa.Table:
    alone = np.isnan(scores.average_precisions)
    columns = [
        *(rows[name].combine_chunks() for name in ("id", "label", "group")),
        pa.array(100 * scores.average_precisions, mask=alone),
        pa.array(scores.hits_at_1 == 1, mask=alone),
        pa.array(scores.knn_correct),
        pa.array(scores.zero_shot_correct),
    ]
    return pa.table(columns, schema=PER_QUERY_SCHEMA)


def _per_class(rows: pa.Table, classes: list[str], names: list[str], class_numbers: np.ndarray, scores: Scores) -> pa.Table:
    group_of = dict(zip(rows["label"].to_pylist(), rows["group"].to_pylist(), strict=True))
    columns = [
        classes,
        names,
        [group_of[label] for label in classes],
        np.bincount(class_numbers, minlength=len(classes)).astype(np.int32),
        100 * scores.name_hits,
    ]
    return pa.table(dict(zip(PER_CLASS_SCHEMA.names, columns, strict=True)), schema=PER_CLASS_SCHEMA)


def _save(path: Path, embeddings: np.ndarray) -> None:
    with artifacts.replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, embeddings)


def _write(path: Path, table: pa.Table) -> None:
    with artifacts.replacing(path) as temporary:
        pq.write_table(table, temporary)


def _summary(recipe: str, metrics: dict[str, Any]) -> str:
    return (
        f"{recipe}: image→image mAP {metrics['image_to_image']['map']:.1f}, k-NN {metrics['knn']['accuracy']:.1f},"
        f" zero-shot {metrics['zero_shot']['accuracy']:.1f}, text→image R@5 {metrics['text_to_image']['recall_at_5']:.1f},"
        f" average {metrics['average']:.1f} percent"
    )
