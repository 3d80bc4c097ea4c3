"""The stage: embed every curated image once with the published recipe, and publish the table.

Whether the recipe may be published is report's verdict; how the table is replaced is writing's concern.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from assets import artifacts, params
from assets.artifacts import RECIPES
from assets.clip import load_clip
from assets.clip.device import resolve_device
from assets.clip.encoding import embedding_size
from assets.embeddings import image_embeddings
from assets.errors import UserError
from assets.search_table.table import model_name
from assets.search_table.writing import write_table

logger = logging.getLogger(__name__)

NORM_TOLERANCE = 1e-3


def publish(settings: params.SearchTable) -> None:
    """Write the table `images` of data/lancedb and data/search_table/manifest.json.

    Readers see the old table until the new one is whole, and may go on reading the old one until the publish after this one begins.
    Needs memory for the vectors (4·N·d bytes), not for the pictures.
    """
    refuse_if_held_back(artifacts.read_json(artifacts.VERDICT), settings.recipe)
    ids = _curated_ids()
    model_dir = artifacts.model_dir(settings.recipe)
    model_sha256 = artifacts.sha256_of(model_dir)
    vectors = _embed(settings, len(ids))
    check_vectors(vectors, ids, str(model_dir))
    content = write_table(vectors, ids, model_name(settings.recipe, model_sha256), settings.batch_size, settings.index_from_rows)
    artifacts.write_json(artifacts.TABLE_MANIFEST, {"recipe": settings.recipe, "model_sha256": model_sha256, **content})
    logger.info("%s: %d images, %d dimensions, embedded by %s", artifacts.LANCEDB, len(ids), vectors.shape[1], settings.recipe)


def refuse_if_held_back(verdict: dict[str, Any], recipe: str) -> None:
    """Raise where the gate says "hold", telling what fell and the ways on."""
    if verdict["recipe"] != recipe:
        raise UserError(
            f"{artifacts.VERDICT} judges {verdict['recipe']!r}, but search_table.recipe is {recipe!r}. Run `dvc repro report` first."
        )
    if verdict["decision"] == "publish":
        return
    fallen = [
        f"{family} fell by {-entry['difference']:.2f} points against {verdict['against']} ({entry['reference']:.2f} → {entry['value']:.2f},"
        f" interval of the difference [{entry['interval'][0]:.2f}, {entry['interval'][1]:.2f}])."
        for family, entry in verdict["families"].items()
        if entry["outcome"] == "worse"
    ]
    others = ", ".join(other for other in RECIPES if other != recipe)
    raise UserError(
        f"{recipe} is held back: {' '.join([*fallen, *verdict['reasons'][-1:]])} The published table stays as it is. Ways on:"
        " retrain with other settings (image_tower, text_tower), publish another recipe (search_table.recipe:"
        f" {others}), or give the reason for publishing all the same in promotion.override_reason; then `dvc repro`."
    )


def _curated_ids() -> list[str]:
    ids: list[str] = pq.read_table(artifacts.CURATED_IMAGES, columns=["id"])["id"].to_pylist()
    if not ids:
        raise UserError(f"{artifacts.CURATED_IMAGES} holds no images, so there is nothing to publish. Look at {artifacts.REJECTED_IMAGES}.")
    double, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise UserError(f"{artifacts.CURATED_IMAGES} has the id {double!r} {times} times. `dvc repro -f curated_images` makes it anew.")
    return ids


def _embed(settings: params.SearchTable, rows: int) -> np.ndarray:
    """float32 [N, d] of the N = `rows` curated images, in the table's order."""
    directory, curated = artifacts.model_dir(settings.recipe), artifacts.CURATED_IMAGES
    device = resolve_device(settings.device)
    model, preprocess, _ = load_clip(directory, device)
    options: dict[str, Any] = {"batch_size": settings.batch_size, "device": device, "precision": settings.precision}
    table_sha256, split_of = artifacts.sha256_of(curated), pq.read_table(curated, columns=["split"])["split"].to_numpy()
    vectors = np.full((rows, embedding_size(model)), np.nan, np.float32)
    for split in artifacts.SPLITS:
        vectors[split_of == split] = image_embeddings(directory, model, preprocess, curated, split, table_sha256=table_sha256, **options)
    return vectors


def check_vectors(vectors: np.ndarray, ids: list[str], model: str) -> None:
    """Raise unless every vector [N, d] is finite and of norm 1: LanceDB would store any other and never find it again."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))  # also where the norm is NaN or infinite
    if bad.size:
        examples = ", ".join(f"{ids[row]} (norm {norms[row]:.4g})" for row in bad[:3])
        raise UserError(
            f"{model} gives {bad.size} of {len(ids)} images a vector that is not finite and of norm 1, such as {examples}. Set"
            " search_table.precision: fp32; if that does not help, the model is broken: train it again with a lower learning rate."
        )
