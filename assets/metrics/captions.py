"""Text→image and image→text recall where an image has several captions. Recall itself is retrieval.py's.

Shapes: N images, T captions, d embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from assets.metrics.retrieval import hits_at_k
from assets.metrics.similarity import Vectors, as_array


class CaptionHits(NamedTuple):
    """1.0 for a hit, 0.0 for none. text_to_image float64 [T]; image_to_text float64 [N], nan for an image without a caption."""

    text_to_image: np.ndarray
    image_to_text: np.ndarray


class CaptionRecall(NamedTuple):
    """Two fractions."""

    text_to_image: float
    image_to_text: float


def caption_recall_at_k(images: Vectors, captions: Vectors, image_of_caption: np.ndarray, k: int) -> CaptionRecall:
    """R@k both ways, as CLIP reports it for Flickr30k and COCO (arXiv 2103.00020, section 3.1; Karpathy & Fei-Fei, arXiv 1412.2306).

    images [N, d], captions [T, d]; image_of_caption int [T], the row of each caption's image. Text→image: the share of captions whose
    image is among the k most similar images. Image→text: the share of images with *at least one* of their captions among the k most
    similar captions; images without a caption are skipped. Ties by index, the lower first. ValueError where there is no caption.
    """
    hits = caption_hits_at_k(images, captions, image_of_caption, k)
    return CaptionRecall(float(hits.text_to_image.mean()), float(np.nanmean(hits.image_to_text)))


def caption_hits_at_k(images: Vectors, captions: Vectors, image_of_caption: np.ndarray, k: int) -> CaptionHits:
    """What `caption_recall_at_k` is the mean of, a value a query."""
    owner = as_array(image_of_caption)
    if owner.shape != (len(captions),) or owner.dtype.kind not in "iu" or not len(owner):
        raise ValueError(f"image_of_caption must be whole numbers [{len(captions)}], at least one, given {owner.dtype} {list(owner.shape)}")
    if owner.min() < 0 or owner.max() >= len(images):
        raise ValueError(f"image_of_caption must be rows of the {len(images)} images, given {owner.min()}…{owner.max()}")
    rows = np.arange(len(images))
    return CaptionHits(
        hits_at_k(captions, images, lambda start, stop: owner[start:stop, None] == rows, k),
        hits_at_k(images, captions, lambda start, stop: rows[start:stop, None] == owner, k),
    )
