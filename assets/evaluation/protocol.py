"""The evaluation protocol on unseen classes, from embeddings to percent. Reading, encoding and writing are the stage's.

Shapes: N test images, C classes, T distinct captions, d embedding, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assets.metrics.bootstrap import bootstrap_interval, bootstrap_means, percentile_interval
from assets.metrics.knn import knn_predictions
from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import average_precision, hits_at_k
from assets.metrics.similarity import exclude_self
from assets.metrics.zero_shot import zero_shot_predictions

TEXT_K = 5


@dataclass(frozen=True)
class Scores:
    """`metrics` in percent, as data/evaluation/<recipe>/metrics.json has them without the recipe; the rest is a value a query.

    average_precisions (fractions), hits_at_1: float64 [N], nan for an image that is alone in its class. knn_correct,
    zero_shot_correct: bool [N]. name_hits: float64 [C].
    """

    metrics: dict[str, Any]
    average_precisions: np.ndarray
    hits_at_1: np.ndarray
    knn_correct: np.ndarray
    zero_shot_correct: np.ndarray
    name_hits: np.ndarray


def score(
    *,
    images: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    name_embeddings: np.ndarray,
    name_ensembles: np.ndarray,
    caption_embeddings: np.ndarray,
    caption_images: Sequence[np.ndarray],
    knn_k: int,
    knn_temperature: float,
    samples: int,
    level: float,
    generator: np.random.Generator,
) -> Scores:
    """All measures of one model.

    images [N, d]; classes int64 [N], the class of each, 0..C−1; names [C]; name_embeddings [C, d], of the names as they are (the text
    queries); name_ensembles [C, d], of the names in their prompts (zero-shot); caption_embeddings [T, d]; caption_images [T], the row
    numbers of the images that carry each caption.

    Image→image: every image a query, itself excluded by index. k-NN: among all other images, at most `knn_k` of them. Text→image: hit
    at 5; every class's name a query, all images of a class of that name relevant; every caption a query, all images that carry it
    relevant. Zero-shot is right when the predicted class has the image's class name: a text cannot tell classes of one name apart.
    `average` is the plain mean of map, knn accuracy, zero-shot accuracy and recall_at_5. An image whose embedding is zero finds nothing:
    its average precision is 0 and its three answers are wrong; to others it is unrelated, at similarity 0.

    Intervals: bootstrap over classes with all their images and their name drawn together, `average` from the same draws (images of a
    class are not independent of each other); over captions for caption_recall_at_5, which is None and has no interval without captions.
    """
    name_numbers = np.unique(np.array(names, dtype=object), return_inverse=True)[1]  # equal for classes of one name
    image_names = name_numbers[classes]
    ranks = list(relevant_ranks(images, images, lambda start, stop: classes[start:stop, None] == classes, exclude_self(len(images))))
    average_precisions = np.array([average_precision(each) for each in ranks])
    hits_at_1 = np.array([float(each[0] == 1) if len(each) else np.nan for each in ranks])
    neighbours = knn_predictions(images, images, classes, k=knn_k, temperature=knn_temperature, exclude=exclude_self(len(images)))
    knn_correct = neighbours == classes
    zero_shot_correct = name_numbers[zero_shot_predictions(images, name_ensembles)] == image_names
    embedded = images.any(axis=1)  # a zero embedding's ranking is all ties: right or wrong by chance
    average_precisions *= embedded  # nan stays nan
    hits_at_1 *= embedded
    knn_correct &= embedded
    zero_shot_correct &= embedded
    name_hits = hits_at_k(name_embeddings, images, lambda start, stop: name_numbers[start:stop, None] == image_names, TEXT_K)

    # one row an image, then one a class; measures side by side, so that a draw of classes gives all of them
    per_image = np.stack([average_precisions, hits_at_1, knn_correct, zero_shot_correct, np.full(len(images), np.nan)], axis=1)
    per_name = np.full((len(names), 5), np.nan)
    per_name[:, 4] = name_hits
    values = 100 * np.concatenate([per_image, per_name])
    mean_ap, recall_at_1, knn, zero_shot, recall_at_5 = np.nanmean(values, axis=0)
    resampled = bootstrap_means(values, samples, generator, groups=np.concatenate([classes, np.arange(len(names))]))
    in_average = [0, 2, 3, 4]
    intervals = {
        "image_to_image.map": percentile_interval(resampled[:, 0], level),
        "image_to_image.recall_at_1": percentile_interval(resampled[:, 1], level),
        "knn.accuracy": percentile_interval(resampled[:, 2], level),
        "zero_shot.accuracy": percentile_interval(resampled[:, 3], level),
        "text_to_image.recall_at_5": percentile_interval(resampled[:, 4], level),
    }
    caption_recall = None
    if len(caption_images):
        caption_hits = 100 * hits_at_k(caption_embeddings, images, _carried_by(caption_images, len(images)), TEXT_K)
        caption_recall = _rounded(caption_hits.mean())
        intervals["text_to_image.caption_recall_at_5"] = bootstrap_interval(caption_hits, samples, level, generator)
    intervals["average"] = percentile_interval(resampled[:, in_average].mean(axis=1), level)
    metrics = {
        "counts": {"images": len(images), "classes": len(names), "captions": len(caption_images)},
        "image_to_image": {"map": _rounded(mean_ap), "recall_at_1": _rounded(recall_at_1)},
        "knn": {"accuracy": _rounded(knn)},
        "zero_shot": {"accuracy": _rounded(zero_shot)},
        "text_to_image": {"recall_at_5": _rounded(recall_at_5), "caption_recall_at_5": caption_recall},
        "average": _rounded((mean_ap + knn + zero_shot + recall_at_5) / 4),
        "confidence": {"level": level} | {name: [_rounded(low), _rounded(high)] for name, (low, high) in intervals.items()},
    }
    return Scores(metrics, average_precisions, hits_at_1, knn_correct, zero_shot_correct, name_hits)


def _carried_by(rows_of: Sequence[np.ndarray], images: int) -> Callable[[int, int], np.ndarray]:
    def relevant(start: int, stop: int) -> np.ndarray:
        block = np.zeros((stop - start, images), bool)
        for offset, rows in enumerate(rows_of[start:stop]):
            block[offset, rows] = True
        return block

    return relevant


def _rounded(percent: float) -> float:
    return round(float(percent), 4)
