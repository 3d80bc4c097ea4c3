"""The stage: embed every curated image once with the published recipe, and publish the table.

The stage promotion decides whether the recipe may be published; how the table is replaced is writing.py's.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts, params
from assets.clip.encoder import Encoder
from assets.engine import HERE, Engine
from assets.errors import UserError
from assets.metrics.norms import unit_norm
from assets.pictures.schema import SPLITS
from assets.pictures.split import Split
from assets.pictures.table import read_rows
from assets.search_table.calibration import calibrate, labelled_rows
from assets.search_table.writing import write_table

logger = logging.getLogger(__name__)

ACCEPTED_SCHEMA = pa.schema([("id", pa.string()), ("sha256", pa.string())])


def publish(settings: params.SearchTable, recipe: str, engine: Engine = HERE) -> None:
    """Publish the table `images` of data/lancedb as a new version, and write data/search_table/manifest.json.

    Images that the model gives no embedding are left out and named in the manifest. Readers see the old version until the new one is
    whole; who holds the old one open may read it as long as versions.prune keeps it. Needs memory for the vectors (4·N·d bytes), not for
    the pictures.
    """
    refuse_if_held_back(artifacts.read_json(artifacts.VERDICT), recipe)
    ids = _curated_ids()
    model_dir = artifacts.model_dir(recipe)
    model_sha256 = artifacts.sha256_of(model_dir)
    encoder = Encoder(model_dir, device=settings.device, precision=settings.precision, batch_size=settings.batch_size, engine=engine)
    vectors = _embed(encoder)
    left_out = without_embedding(vectors, ids, model_dir, settings.max_share_left_out)
    manifest = write_table(vectors, ids, left_out, recipe, model_sha256, settings, _calibration(vectors, encoder))
    _record_accepted()
    logger.info("%s: %d images, %d dimensions, embedded by %s", artifacts.LANCEDB, manifest["rows"], vectors.shape[1], recipe)


def refuse_if_held_back(verdict: dict[str, Any], recipe: str) -> None:
    """Raise where the gate says "hold", with what fell and what can be done."""
    if verdict["recipe"] != recipe:
        raise UserError(
            f"{artifacts.VERDICT} judges {verdict['recipe']!r}, but promotion.recipe is {recipe!r}. Run `dvc repro promotion` first."
        )
    if verdict["decision"] == "publish":
        return
    fallen = [
        f"{family} fell by {-entry['difference']:.2f} points against {verdict['against']} ({entry['reference']:.2f} → {entry['value']:.2f},"
        f" interval of the difference [{entry['interval'][0]:.2f}, {entry['interval'][1]:.2f}])."
        for family, entry in verdict["families"].items()
        if entry["outcome"] == "worse"
    ]
    raise UserError(
        f"{recipe} is held back: {' '.join([*fallen, *verdict['reasons'][-1:]])} The published table stays as it is. You can retrain with"
        " other settings (image_tower, text_tower, or those of its row in recipes), publish another recipe of recipes.measured"
        " (promotion.recipe), or give a reason for publishing all the same in promotion.override_reason; then `dvc repro`."
    )


def _curated_ids() -> list[str]:
    ids: list[str] = read_rows(artifacts.CURATED_IMAGES, columns=["id"])["id"].to_pylist()
    if not ids:
        raise UserError(f"{artifacts.CURATED_IMAGES} holds no images, so there is nothing to publish. Look at {artifacts.REJECTED_IMAGES}.")
    double, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise UserError(f"{artifacts.CURATED_IMAGES} has the id {double!r} {times} times. `dvc repro -f curated_images` makes it anew.")
    return ids


def _record_accepted() -> None:
    """ACCEPTED: `id` of each picture that curation read, and the `sha256` of those that it kept, in order of id.

    curated_images compares with it the pictures that come after this publish.
    """
    kept = read_rows(artifacts.CURATED_IMAGES, columns=["id", "sha256"])
    rejected = pq.read_table(artifacts.REJECTED_IMAGES, columns=["id"])
    tables = [kept.cast(ACCEPTED_SCHEMA), rejected.cast(pa.schema([ACCEPTED_SCHEMA.field("id")]))]
    rows = pa.concat_tables(tables, promote_options="default")
    with artifacts.replacing(artifacts.ACCEPTED) as temporary:
        pq.write_table(rows.sort_by("id"), temporary, compression="zstd")


def _embed(encoder: Encoder) -> np.ndarray:
    """float32 [N, d] of all N curated images, in the table's order."""
    split_of = read_rows(artifacts.CURATED_IMAGES, columns=["split"])["split"].to_numpy()
    vectors = np.full((len(split_of), encoder.dimension), np.nan, np.float32)
    for split in SPLITS:
        vectors[split_of == split] = encoder.images(Split(artifacts.CURATED_IMAGES, split))
    return vectors


def _calibration(vectors: np.ndarray, encoder: Encoder) -> dict[str, Any]:
    """What cosines mean, by the test pictures among vectors [N, d] and the names of their classes."""
    columns = read_rows(artifacts.CURATED_IMAGES, columns=["split", "label", "class_name"])
    labels = columns["label"].to_numpy()
    rows = labelled_rows(columns["split"].to_numpy(), labels)
    names = {labels[row]: name for row, name in zip(rows, columns["class_name"].take(rows).to_pylist(), strict=True) if name}
    return calibrate(vectors[rows], labels[rows], encoder.texts(list(names.values())), np.array(list(names), object))


def without_embedding(vectors: np.ndarray, ids: list[str], model_dir: Path, most: float) -> dict[str, str]:
    """The images whose vector [N, d] is not finite and of norm 1, by id, and why: LanceDB would store such a vector and never find it.

    Raises where they are more than the share `most`, or all.
    """
    bad = np.flatnonzero(~unit_norm(vectors))
    if not bad.size:
        return {}
    found = {ids[row]: "the embedding is zero" if not vectors[row].any() else "the embedding is not finite and of norm 1" for row in bad}
    examples = ", ".join(f"{image} ({why})" for image, why in list(found.items())[:3])
    said = f"{model_dir} gives {len(found)} of {len(ids)} images no embedding, such as {examples}."
    if len(found) > most * len(ids) or len(found) == len(ids):
        raise UserError(
            f"{said} Up to a share of {most} would be left out (search_table.max_share_left_out; raise it where these are blank pictures)."
            " Else set search_table.precision: fp32; if that does not help, the model is broken: train it again with a lower learning rate."
        )
    logger.warning("%s They are left out of the table and named in %s.", said, artifacts.TABLE_MANIFEST)
    return found
