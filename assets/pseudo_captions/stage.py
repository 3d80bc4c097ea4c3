"""Stage pseudo_captions: reads curated_images and models/base, writes captions.parquet and image_captions.parquet.

Which captions are alike or near to an image: clusters.py, nearness.py and assign.py. Captions from elsewhere: corpus.py.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts
from assets.clip.encoder import Encoder
from assets.clip.readable import in_words, read_texts, readability
from assets.engine import HERE, Engine
from assets.params import PseudoCaptions
from assets.pictures.spelling import distinct, normalised
from assets.pictures.split import Split
from assets.pictures.table import read_rows
from assets.pseudo_captions.assign import assign_captions
from assets.pseudo_captions.clusters import cluster_captions
from assets.pseudo_captions.corpus import read_corpus
from assets.pseudo_captions.nearness import Unrelated, own_similarities, unrelated
from assets.recipes import BASE

logger = logging.getLogger(__name__)

CAPTIONS_SCHEMA = pa.schema([("caption_id", pa.int64()), ("caption", pa.string()), ("cluster", pa.int64())])
IMAGE_CAPTIONS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("caption_ids", pa.list_(pa.int64())),
        ("similarities", pa.list_(pa.float32())),
        ("own", pa.list_(pa.bool_())),  # whether it came with the picture, or is its class's name; else it was found
    ]
)
SHOWN_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def make_pseudo_captions(settings: PseudoCaptions, engine: Engine = HERE) -> None:
    known = read_candidates(settings, engine)
    assigned = captions_of_images(known, settings, engine)
    similarities = own_similarities(known.images, known.texts, assigned)
    own = [[place < len(mine) for place in range(len(each))] for each, mine in zip(assigned, known.own, strict=True)]
    _log_summary(known, assigned, similarities, settings)

    captions = pa.table([np.arange(len(known.corpus)), known.corpus, known.clusters], schema=CAPTIONS_SCHEMA)
    image_captions = pa.table([known.ids, assigned, [each.tolist() for each in similarities], own], schema=IMAGE_CAPTIONS_SCHEMA)
    for path, table in ((artifacts.CAPTIONS, captions), (artifacts.IMAGE_CAPTIONS, image_captions)):
        with artifacts.replacing(path) as temporary:
            pq.write_table(table, temporary)


@dataclass(frozen=True)
class Candidates:
    """The training images and the corpus, encoded by the base. N images, T captions, d embedding."""

    ids: list[str]
    images: np.ndarray  # float32 [N, d]
    corpus: list[str]
    texts: np.ndarray  # float32 [T, d]
    clusters: np.ndarray  # int64 [T]
    own: list[list[int]]  # of each image: numbers of the captions that came with it, and of its class's name
    findable: np.ndarray  # bool [T]: readable, and not the name of a class, which would be wrong for the images of all others
    unrelated: Unrelated


def read_candidates(settings: PseudoCaptions, engine: Engine = HERE) -> Candidates:
    rows = read_rows(artifacts.CURATED_IMAGES, "train")
    names = rows["class_name"].to_pylist()
    own = [distinct([*captions, name]) for captions, name in zip(rows["captions"].to_pylist(), names, strict=True)]
    extra = read_corpus(settings.extra_corpora)
    corpus = distinct([*(caption for captions in own for caption in captions), *extra])
    number = {normalised(caption): row for row, caption in enumerate(corpus)}
    numbers = [[number[normalised(caption)] for caption in captions] for captions in own]

    encoder = Encoder(artifacts.model_dir(BASE), device=settings.device, precision=settings.precision, engine=engine)
    for sentence in in_words("captions of pseudo_captions.extra_corpora", readability(encoder.tokenizer, extra)):
        logger.warning("%s", sentence)
    readings = read_texts(encoder.tokenizer, corpus)
    of_classes = {normalised(name) for name in names}
    findable = [not reading.unreadable and key not in of_classes for key, reading in zip(number, readings, strict=True)]
    texts, images = encoder.texts(corpus), encoder.images(Split(artifacts.CURATED_IMAGES, "train"))
    wanted = min(round(settings.clusters_per_caption * len(corpus)), settings.max_clusters)
    return Candidates(
        ids=rows["id"].to_pylist(),
        images=images,
        corpus=corpus,
        texts=texts,
        clusters=cluster_captions(texts, wanted, settings.seed),
        own=numbers,
        findable=np.array(findable, bool),
        unrelated=unrelated(images, texts, numbers),
    )


def captions_of_images(known: Candidates, settings: PseudoCaptions, engine: Engine = HERE) -> list[list[int]]:
    """For each image the numbers of its own captions, then of the found ones."""
    limit = known.unrelated.limit(settings.min_z)
    return assign_captions(
        known.images,
        known.texts,
        known.clusters,
        known.own,
        known.findable,
        top_k=settings.top_k,
        min_similarity=limit,
        engine=engine,
    )


def _log_summary(known: Candidates, assigned: list[list[int]], cosines: list[np.ndarray], settings: PseudoCaptions) -> None:
    limit, own = known.unrelated.limit(settings.min_z), [len(each) for each in known.own]
    counts = np.array([len(each) - mine for each, mine in zip(assigned, own, strict=True)])
    logger.info("%d captions in %d clusters; %d may be found", len(known.corpus), len(set(known.clusters.tolist())), known.findable.sum())
    logger.info(
        "cosine of an image and a caption of others: %.3f ± %.3f; a found caption has at least %.3f",
        *(known.unrelated.mean, known.unrelated.deviation, limit),
    )
    _log_cosines("own", [each[:mine] for each, mine in zip(cosines, own, strict=True)])
    _log_cosines("found", [each[mine:] for each, mine in zip(cosines, own, strict=True)])
    for what, few in ((f"fewer than {settings.top_k} captions", counts < settings.top_k), ("none", counts == 0)):
        logger.info("%d of %d images (%.1f %%) found %s", few.sum(), len(few), 100 * few.mean(), what)
    for row in np.unique(np.linspace(0, len(assigned) - 1, 5).astype(int)):
        words = [known.corpus[caption] for caption in assigned[row]]
        logger.info("  %s: %s; found: %s", known.ids[row], ", ".join(words[: own[row]]), ", ".join(words[own[row] :]) or "none")


def _log_cosines(kind: str, of_images: list[np.ndarray]) -> None:
    every = np.concatenate(of_images)
    if len(every):
        quantiles = ", ".join(f"{np.quantile(every, share):.3f} ({100 * share:.0f} %)" for share in SHOWN_QUANTILES)
        logger.info("%s captions: %.1f per image; quantiles of their cosines: %s", kind, len(every) / len(of_images), quantiles)
