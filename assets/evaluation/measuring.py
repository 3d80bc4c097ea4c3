"""Measure one model on the test split, by the protocol: encode its pictures and texts, score them. Which model, and what is written, is
the stages' concern.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from assets import artifacts
from assets.clip.encoder import Encoder
from assets.engine import HERE, Engine
from assets.errors import UserError
from assets.evaluation.made_with import made_with, read_model_card
from assets.evaluation.protocol import score
from assets.evaluation.usable import UsableEncoder
from assets.evaluations import Evaluation, TestSplit, per_class_table, per_query_table, sibling_classes
from assets.measures import SHOWN, known_value, percent
from assets.metrics.zero_shot import prompt_ensemble
from assets.params import Evaluation as Settings
from assets.pictures.split import Split
from assets.pictures.table import read_rows

NOT_OF_THE_NUMBERS = {"device", "batch_size", "benchmarks_root"}  # benchmarks have protocols of their own


def read_split() -> TestSplit:
    """The test split of the curated table. UserError where no class has two pictures."""
    test = TestSplit(read_rows(artifacts.CURATED_IMAGES, "test"))
    if len(test.classes) == len(test.labels):  # also where there are none
        raise UserError(
            f"the test split of {artifacts.CURATED_IMAGES} has {len(test.labels)} images of as many classes; retrieval needs a class with"
            " two. Add images, raise curated_images.test_fraction or choose another curated_images.seed."
        )
    return test


def open_encoder(directory: Path, settings: Settings, engine: Engine = HERE) -> UsableEncoder:
    return UsableEncoder(
        Encoder(directory, device=settings.device, precision=settings.precision, batch_size=settings.batch_size, engine=engine)
    )


def measure(recipe: str, encoder: UsableEncoder, test: TestSplit, settings: Settings) -> Evaluation:
    """The model's scores on the test split, and the embeddings that they follow from. `recipe` is what the evaluation calls the model."""
    siblings = sibling_classes(test, settings.sibling_correlation)
    directory = encoder.encoder.directory
    card = read_model_card(directory)
    images = encoder.images_or_blank(Split(artifacts.CURATED_IMAGES, "test"), test.rows["id"].to_pylist())
    prompted = [[prompt.replace("{}", name) for prompt in settings.prompts] for name in test.class_names]
    texts = sorted({*test.class_names, *test.captions, *(text for own in prompted for text in own)})  # each is encoded once
    encoded = encoder.texts(texts)
    row_of = {text: row for row, text in enumerate(texts)}
    names, captions = (encoded[[row_of[text] for text in each]] for each in (test.class_names, test.captions))
    number_of = {label: number for number, label in enumerate(test.classes)}
    images_of = _images_of_captions(test.captions_of)

    scores = score(
        images=images,
        classes=np.array([number_of[label] for label in test.labels]),
        names=test.class_names,
        families=test.families,
        siblings=siblings,
        name_embeddings=names,
        name_ensembles=prompt_ensemble(encoded[[[row_of[text] for text in own] for own in prompted]]),
        caption_embeddings=captions,
        caption_images=[np.array(images_of[caption]) for caption in test.captions],
        knn_k=settings.knn_k,
        knn_temperature=settings.knn_temperature,
        samples=settings.bootstrap_samples,
        level=settings.confidence,
        generator=np.random.default_rng(settings.seed),
    )
    return Evaluation(
        recipe,
        {"recipe": recipe, **scores.metrics},
        images,
        np.concatenate([names, captions]),
        per_query_table(test, siblings, scores.values),
        per_class_table(test, siblings, scores.values),
        made_with(recipe, artifacts.sha256_of(directory), card, settings.model_dump(exclude=NOT_OF_THE_NUMBERS)),
    )


def _images_of_captions(captions: list[list[str]]) -> dict[str, list[int]]:
    """The rows of the images that carry each caption."""
    images_of: dict[str, list[int]] = {}
    for row, own in enumerate(captions):
        for caption in dict.fromkeys(own):
            images_of.setdefault(caption, []).append(row)
    return images_of


def summary(metrics: dict[str, Any]) -> str:
    """The average and what it is made of."""
    shown = [measure for measure in SHOWN if measure.in_average or measure.key == "average"]
    return ", ".join(f"{measure.name} {percent(known_value(metrics, measure.key))}" for measure in shown)
