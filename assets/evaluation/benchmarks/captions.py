"""Flickr30k and MS-COCO on Karpathy's test splits: text→image and image→text recall.

Shapes: N images, T captions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Pictures, listed, required
from assets.evaluation.benchmarks.recall import recalls
from assets.evaluation.benchmarks.tools import Tools
from assets.metrics.ranking import relevant_ranks

RECALL_AT = (1, 5, 10)


class Captioned(NamedTuple):
    pictures: Pictures
    captions: list[str]  # [T]
    image_of: np.ndarray  # int64 [T], the row of each caption's image


def read_flickr30k(root: Path) -> Captioned:
    """`dataset_flickr30k.json`, the images of split "test" in its order, and `flickr30k-images/<filename>`."""
    return _read_karpathy(root, root / "dataset_flickr30k.json", "flickr30k-images")


def read_coco(root: Path) -> Captioned:
    """`dataset_coco.json`, the images of split "test" in its order, and `val2014/<filename>`."""
    return _read_karpathy(root, root / "dataset_coco.json", "val2014")


def measure_captions(data: Captioned, tools: Tools) -> dict[str, float]:
    """Recall at 1, 5 and 10 on Karpathy's test split (arXiv 1412.2306): 1,000 images of Flickr30k, 5,000 of MS-COCO; percent.

    text→image: every caption is a query, its one image is relevant. image→text: every image is a query, and it is a hit when any of its
    captions is among the k most similar of all. All captions of an image (five, of COCO now and then more) are encoded as they are
    written, as in LAION-AI/CLIP_benchmark; Table 1 of arXiv 2409.01936 has text→image recall at 5.
    """
    images, texts = tools.encoder.images(data.pictures), tools.encoder.texts(data.captions)
    rows = np.arange(len(images))
    to_image = relevant_ranks(texts, images, lambda start, stop: data.image_of[start:stop, None] == rows)
    found = {f"text_to_image_{name}": value for name, value in recalls(to_image, RECALL_AT).items()}
    to_text = relevant_ranks(images, texts, lambda start, stop: rows[start:stop, None] == data.image_of)
    return found | {f"image_to_text_{name}": value for name, value in recalls(to_text, RECALL_AT).items()}


def _read_karpathy(root: Path, path: Path, folder: str) -> Captioned:
    try:
        test = [image for image in json.loads(required(path).read_text(encoding="utf-8"))["images"] if image["split"] == "test"]
        names = [str(image["filename"]) for image in test]
        captions = [[str(sentence["raw"]) for sentence in image["sentences"]] for image in test]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not Karpathy's split: {type(error).__name__} {error}.") from None
    if not names or not all(captions):
        raise UserError(f"{path} has no image of split test, or one without a sentence.")
    image_of = np.repeat(np.arange(len(names)), [len(own) for own in captions])
    return Captioned(listed(root / folder, names), [caption for own in captions for caption in own], image_of)
