"""The evaluation protocol on unseen classes, from embeddings to percent. Reading, encoding and writing are the stage's.

Shapes: N test images, C classes, T distinct captions, d embedding, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assets.measures import AVERAGE, AVERAGED, MEASURE_OF, SHOWN
from assets.metrics.bootstrap import bootstrap_interval, bootstrap_means, percentile_interval
from assets.metrics.knn import knn_predictions
from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import average_precision, hits_at_k
from assets.metrics.similarity import exclude_self
from assets.metrics.zero_shot import zero_shot_predictions

TEXT_K = 5
CAPTION_RECALL = "text_to_image.caption_recall_at_5"


@dataclass(frozen=True)
class Scores:
    """`metrics` in percent, as data/evaluation/<recipe>/metrics.json has them without the recipe.

    `values` of each measure in PAIRED, by its key: one fraction per query, float64 [N] for images and [C] for classes; nan where a query
    has nothing to find, such as an image that is alone in its class.
    """

    metrics: dict[str, Any]
    values: dict[str, np.ndarray]


def score(
    *,
    images: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    families: Sequence[str],
    siblings: np.ndarray,
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
    """All measures of one model on its test images.

    images [N, d]; classes int64 [N], the class of each, 0..C−1; names [C]; families [C], what is drawn together; siblings bool [C], those
    that `without_siblings` leaves out; name_embeddings [C, d], of the names as they are (the text queries); name_ensembles [C, d], of the
    names in their prompts (zero-shot); caption_embeddings [T, d]; caption_images [T], the row numbers of the images that carry each
    caption.

    Image→image: every image is a query, itself excluded by index. k-NN: the nearest `knn_k` of all other images vote, or all of them.
    Text→image: a hit is a relevant image among the first 5. Every class's name is a query, and all images of a class of that name are
    relevant; every caption is a query, and all images that carry it are relevant. Zero-shot is right when the predicted class has the
    image's class name: a text cannot tell classes of one name apart. `average` is the plain mean of the measures in AVERAGED. An image
    whose embedding is zero finds nothing: its average precision is 0 and its three answers are wrong; to others its similarity is 0.

    Intervals: bootstrap over families with all their images and names drawn together, `average` from the same draws (images of a class
    are not independent of each other, nor are classes that show nearly the same); over captions for caption_recall_at_5, which is None
    and has no interval without captions.

    `without_siblings`: the same means over the queries of the other classes alone, in the same gallery; None where a measure has none.
    """
    name_numbers = np.unique(np.array(names, dtype=object), return_inverse=True)[1]  # equal for classes of one name
    values = {
        **_by_image(images, classes, knn_k, knn_temperature),
        "zero_shot.accuracy": _right(name_numbers[zero_shot_predictions(images, name_ensembles)] == name_numbers[classes], images),
        "text_to_image.recall_at_5": hits_at_k(
            name_embeddings, images, lambda start, stop: name_numbers[start:stop, None] == name_numbers[classes], TEXT_K
        ),
    }
    # one column per measure, side by side, so that a draw of families gives all of them
    side_by_side = _side_by_side(values, len(images), len(names))
    percents = dict(zip(values, np.nanmean(side_by_side, axis=0), strict=True))
    family_numbers = np.unique(np.array(families, dtype=object), return_inverse=True)[1]
    resampled = bootstrap_means(side_by_side, samples, generator, groups=np.concatenate([family_numbers[classes], family_numbers]))
    draws = dict(zip(values, resampled.T, strict=True))
    intervals = {key: percentile_interval(draws[key], level) for key in values}
    if len(caption_images):
        caption_hits = 100 * hits_at_k(caption_embeddings, images, _carried_by(caption_images, len(images)), TEXT_K)
        percents[CAPTION_RECALL] = caption_hits.mean()
        intervals[CAPTION_RECALL] = bootstrap_interval(caption_hits, samples, level, generator)
    percents[AVERAGE.key] = sum(percents[key] for key in AVERAGED) / len(AVERAGED)
    intervals[AVERAGE.key] = percentile_interval(np.stack([draws[key] for key in AVERAGED], axis=1).mean(axis=1), level)
    metrics = {"counts": {"images": len(images), "classes": len(names), "captions": len(caption_images)}, **_nested(percents)}
    apart = ~siblings
    counts = {"classes": int(apart.sum()), "images": int(apart[classes].sum())}
    metrics["without_siblings"] = counts | _means(dict(zip(values, side_by_side[np.concatenate([apart[classes], apart])].T, strict=True)))
    confidence = {"level": level, **{key: [_rounded(low), _rounded(high)] for key, (low, high) in _in_order(intervals).items()}}
    return Scores(metrics | {"confidence": confidence}, values)


def _by_image(images: np.ndarray, classes: np.ndarray, knn_k: int, knn_temperature: float) -> dict[str, np.ndarray]:
    """What every image finds among the others, float64 [N] by measure."""
    ranks = list(relevant_ranks(images, images, lambda start, stop: classes[start:stop, None] == classes, exclude_self(len(images))))
    precisions = np.array([average_precision(each) for each in ranks])
    first_hits = np.array([float(each[0] == 1) if len(each) else np.nan for each in ranks])
    neighbours = knn_predictions(images, images, classes, k=knn_k, temperature=knn_temperature, exclude=exclude_self(len(images)))
    return {
        "image_to_image.map": _right(precisions, images),
        "image_to_image.recall_at_1": _right(first_hits, images),
        "knn.accuracy": _right(neighbours == classes, images),
    }


def _right(answers: np.ndarray, images: np.ndarray) -> np.ndarray:
    """float64 [N]; 0 for a zero embedding, whose ranking is all ties: right or wrong by chance. nan stays nan."""
    return answers.astype(np.float64) * images.any(axis=1)


def _nested(percents: Mapping[str, float]) -> dict[str, Any]:
    """Every shown measure as metrics.json has it, by family; None where it was not measured."""
    metrics: dict[str, Any] = {}
    for measure in SHOWN:
        *family, name = measure.key.split(".")
        row = metrics.setdefault(family[0], {}) if family else metrics
        row[name] = _rounded(percents[measure.key]) if measure.key in percents else None
    return metrics


def _in_order(intervals: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    return {measure.key: intervals[measure.key] for measure in SHOWN if measure.key in intervals}


def _means(percents: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The mean of each measure, nested as in metrics.json, and of the average; None where there is no value to average."""
    found: dict[str, Any] = {}
    means = {key: float(np.mean(known)) if len(known := column[~np.isnan(column)]) else None for key, column in percents.items()}
    averaged = [means[key] for key in AVERAGED]
    for key, mean in means.items():
        family, name = key.split(".")
        found.setdefault(family, {})[name] = None if mean is None else _rounded(mean)
    found["average"] = None if None in averaged else _rounded(sum(each for each in averaged if each is not None) / len(averaged))
    return found


def _side_by_side(values: Mapping[str, np.ndarray], images: int, classes: int) -> np.ndarray:
    """Percent, float64 [N + C, M]: a row per image, then a row per class, nan where a measure has no value of such a query."""
    columns = []
    for key, of_queries in values.items():
        column = np.full(images + classes, np.nan)
        column[slice(None, images) if MEASURE_OF[key].unit == "image" else slice(images, None)] = of_queries
        columns.append(100 * column)
    return np.stack(columns, axis=1)


def _carried_by(rows_of: Sequence[np.ndarray], images: int) -> Callable[[int, int], np.ndarray]:
    def relevant(start: int, stop: int) -> np.ndarray:
        block = np.zeros((stop - start, images), bool)
        for offset, rows in enumerate(rows_of[start:stop]):
            block[offset, rows] = True
        return block

    return relevant


def _rounded(percent: float) -> float:
    return round(float(percent), 4)
