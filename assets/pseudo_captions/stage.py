"""Stage pseudo_captions: reads curated_images and models/base, writes captions.parquet and image_captions.parquet.

Which captions are the same, alike or near to an image: corpus.py, clusters.py and assign.py.
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts
from assets.clip.encoder import Encoder
from assets.params import PseudoCaptions
from assets.pictures.split import Split
from assets.pictures.table import read_rows
from assets.pseudo_captions.assign import assign_captions
from assets.pseudo_captions.clusters import cluster_captions
from assets.pseudo_captions.corpus import distinct_captions, normalised, read_corpus
from assets.recipes import BASE

logger = logging.getLogger(__name__)

CAPTIONS_SCHEMA = pa.schema([("caption_id", pa.int64()), ("caption", pa.string()), ("cluster", pa.int64())])
IMAGE_CAPTIONS_SCHEMA = pa.schema([("id", pa.string()), ("caption_ids", pa.list_(pa.int64())), ("similarities", pa.list_(pa.float32()))])


def make_pseudo_captions(settings: PseudoCaptions) -> None:
    rows = read_rows(artifacts.CURATED_IMAGES, "train")
    own = [
        distinct_captions([*captions, name])
        for captions, name in zip(rows["captions"].to_pylist(), rows["class_name"].to_pylist(), strict=True)
    ]
    corpus = distinct_captions([*(caption for captions in own for caption in captions), *read_corpus(settings.extra_corpora)])
    number = {normalised(caption): row for row, caption in enumerate(corpus)}

    encoder = Encoder(artifacts.model_dir(BASE), device=settings.device, precision=settings.precision)
    texts, images = encoder.texts(corpus), encoder.images(Split(artifacts.CURATED_IMAGES, "train"))
    wanted = min(round(settings.clusters_per_caption * len(corpus)), settings.max_clusters)
    clusters = cluster_captions(texts, wanted, settings.seed)
    found = assign_captions(
        images,
        texts,
        clusters,
        [[number[normalised(caption)] for caption in captions] for captions in own],
        top_k=settings.top_k,
        min_similarity=settings.min_similarity,
    )
    _log_summary(rows["id"].to_pylist(), own, corpus, clusters, found)

    captions = pa.table([np.arange(len(corpus)), corpus, clusters], schema=CAPTIONS_SCHEMA)
    similarities = [(texts[ids] @ images[row]).tolist() for row, ids in enumerate(found)]
    image_captions = pa.table([rows["id"], found, similarities], schema=IMAGE_CAPTIONS_SCHEMA)
    for path, table in ((artifacts.CAPTIONS, captions), (artifacts.IMAGE_CAPTIONS, image_captions)):
        with artifacts.replacing(path) as temporary:
            pq.write_table(table, temporary)


def _log_summary(ids: list[str], own: list[list[str]], corpus: list[str], clusters: np.ndarray, found: list[list[int]]) -> None:
    counts = np.array([len(captions) - len(mine) for captions, mine in zip(found, own, strict=True)])
    without = int((counts <= 0).sum())
    logger.info("%d captions in %d clusters", len(corpus), len(set(clusters.tolist())))
    logger.info("%d of %d images (%.1f %%) found no caption besides their own", without, len(ids), 100 * without / len(ids))
    for row in np.unique(np.linspace(0, len(ids) - 1, 5).astype(int)):
        logger.info("  %s: %s", ids[row], ", ".join(corpus[caption] for caption in found[row]))
