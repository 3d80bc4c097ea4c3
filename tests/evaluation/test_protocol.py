"""The whole protocol on seven images in the plane, worked out by hand."""

import numpy as np
import pytest

from assets.evaluation.protocol import score
from assets.measures import PAIRED


def at(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def scores_of(**changed):
    # Class 0 at 0° and 20°, class 1 at 90°, 50° and 33°, class 2 at 170° and 180°.
    given = {
        "images": at(0, 20, 90, 50, 33, 170, 180),
        "classes": np.array([0, 0, 1, 1, 1, 2, 2]),
        "names": ["zero", "one", "two"],
        "families": ["zero", "one", "two"],
        "siblings": np.array([False, True, False]),
        "name_embeddings": at(0, 90, 10),  # "two" is far from its images
        "name_ensembles": at(0, 80, 175),
        "caption_embeddings": at(180, 180),
        "caption_images": [np.array([0]), np.array([0, 4])],
        "knn_k": 1,
        "knn_temperature": 0.1,
        "samples": 200,
        "level": 0.9,
        "generator": np.random.default_rng(0),
    }
    return score(**(given | changed))


# Nearest first, among the others:
#   0°: 20 33 50 90 170 180    its class at rank 1       AP 1
#  20°: 33 0 50 90 170 180     at rank 2                 AP 1/2
#  90°: 50 33 20 170 …         at ranks 1, 2             AP 1
#  50°: 33 20 90 0 170 180     at ranks 1, 3             AP (1 + 2/3)/2 = 5/6
#  33°: 20 50 0 90 170 180     at ranks 2, 4             AP (1/2 + 2/4)/2 = 1/2
# 170° and 180° find each other first                    AP 1 each
AVERAGE_PRECISIONS = [1, 1 / 2, 1, 5 / 6, 1 / 2, 1, 1]
NEAREST_IS_RIGHT = [1, 0, 1, 1, 0, 1, 1]
ZERO_SHOT_IS_RIGHT = [1, 1, 1, 1, 0, 1, 1]  # 33° is nearer to 0° than to 80°
NAME_HITS = [1, 1, 0]  # from 10°, the images at 170° and 180° come sixth and seventh


def test_values_by_hand():
    found = scores_of()
    np.testing.assert_allclose(found.values["image_to_image.map"], AVERAGE_PRECISIONS, atol=1e-12)
    assert found.values["image_to_image.recall_at_1"].tolist() == NEAREST_IS_RIGHT
    assert found.values["knn.accuracy"].tolist() == [bool(right) for right in NEAREST_IS_RIGHT]
    assert found.values["zero_shot.accuracy"].tolist() == [bool(right) for right in ZERO_SHOT_IS_RIGHT]
    assert found.values["text_to_image.recall_at_5"].tolist() == NAME_HITS
    assert list(found.values) == [measure.key for measure in PAIRED]
    confidence = found.metrics.pop("confidence")
    assert found.metrics == {
        "counts": {"images": 7, "classes": 3, "captions": 2},
        "image_to_image": {"map": 83.3333, "recall_at_1": 71.4286},  # 5.8333/7, 5/7
        "knn": {"accuracy": 71.4286},
        "zero_shot": {"accuracy": 85.7143},
        # Both captions point to 180°. The image at 0° comes last from there; that at 33° comes fifth, which is a hit for the second.
        "text_to_image": {"recall_at_5": 66.6667, "caption_recall_at_5": 50.0},
        "average": 76.7857,  # (83.3333 + 71.4286 + 85.7143 + 66.6667)/4
        "without_siblings": {  # classes 0 and 2, in the same gallery
            "classes": 2,
            "images": 4,
            "image_to_image": {"map": 87.5, "recall_at_1": 75.0},
            "knn": {"accuracy": 75.0},
            "zero_shot": {"accuracy": 100.0},
            "text_to_image": {"recall_at_5": 50.0},
            "average": 78.125,
        },
    }
    assert list(confidence) == [
        "level",
        "image_to_image.map",
        "image_to_image.recall_at_1",
        "knn.accuracy",
        "zero_shot.accuracy",
        "text_to_image.recall_at_5",
        "text_to_image.caption_recall_at_5",
        "average",
    ]


def test_an_image_without_an_embedding_finds_nothing_and_is_found_by_chance_alone():
    """The image at 0° is zero now. Its own ranking would be all ties, with its classmate first."""
    images = at(0, 20, 90, 50, 33, 170, 180)
    images[0] = 0
    found = scores_of(images=images)
    # from 20°: 33 50 90 zero 170 180, rank 4; from 33°: 20 50 90 …, ranks 2, 3; the others as before
    np.testing.assert_allclose(found.values["image_to_image.map"], [0, 1 / 4, 1, 5 / 6, (1 / 2 + 2 / 3) / 2, 1, 1], atol=1e-12)
    assert found.values["image_to_image.recall_at_1"].tolist() == [0, *NEAREST_IS_RIGHT[1:]]
    assert found.values["knn.accuracy"].tolist() == [False, *map(bool, NEAREST_IS_RIGHT[1:])]
    assert found.values["zero_shot.accuracy"].tolist() == [False, *map(bool, ZERO_SHOT_IS_RIGHT[1:])]
    alone = scores_of(images=images, classes=np.array([0, 1, 1, 1, 1, 2, 2]))
    assert np.isnan(alone.values["image_to_image.map"][0])
    assert np.isnan(alone.values["image_to_image.recall_at_1"][0])


def test_intervals_draw_whole_classes_and_all_measures_together():
    confidence = scores_of().metrics["confidence"]
    images_of = [[0, 1], [2, 3, 4], [5, 6]]
    resampled = []
    for drawn in np.random.default_rng(0).integers(3, size=(200, 3)):
        rows = [row for number in drawn for row in images_of[number]]
        map_, hit, right = (np.mean([each[row] for row in rows]) for each in (AVERAGE_PRECISIONS, NEAREST_IS_RIGHT, ZERO_SHOT_IS_RIGHT))
        recall = np.mean([NAME_HITS[number] for number in drawn])
        resampled.append([map_, hit, hit, right, recall, (map_ + hit + right + recall) / 4])
    low, high = 100 * np.quantile(resampled, [0.05, 0.95], axis=0)
    in_order = (
        "image_to_image.map",
        "image_to_image.recall_at_1",
        "knn.accuracy",
        "zero_shot.accuracy",
        "text_to_image.recall_at_5",
        "average",
    )
    for number, name in enumerate(in_order):
        assert confidence[name] == pytest.approx([low[number], high[number]], abs=1e-4), name
    assert confidence["text_to_image.caption_recall_at_5"] == [0, 100]


def test_intervals_draw_families_of_classes():
    """Classes that show nearly the same are not independent: drawn one by one, the interval was a third too narrow."""
    confidence = scores_of(families=["a", "b", "a"]).metrics["confidence"]
    drawn = np.random.default_rng(0).integers(2, size=(200, 2))
    of_family = np.array([[1, 2], [1, 1]])  # of a and b: names that find their images, of so many
    resampled = [100 * of_family[each][:, 0].sum() / of_family[each][:, 1].sum() for each in drawn]
    assert confidence["text_to_image.recall_at_5"] == pytest.approx(np.quantile(resampled, [0.05, 0.95]), abs=1e-4)
    assert confidence["text_to_image.recall_at_5"] != scores_of().metrics["confidence"]["text_to_image.recall_at_5"]


def test_siblings_all_around_leave_nothing_to_average():
    found = scores_of(siblings=np.ones(3, bool)).metrics["without_siblings"]
    assert (found["classes"], found["images"], found["average"], found["knn"]) == (0, 0, None, {"accuracy": None})
    none = scores_of(siblings=np.zeros(3, bool)).metrics
    whole = {key: none[key] for key in ("image_to_image", "knn", "zero_shot", "average")}
    assert {key: none["without_siblings"][key] for key in whole} == whole


def test_no_captions():
    metrics = scores_of(caption_images=[], caption_embeddings=np.zeros((0, 2))).metrics
    assert metrics["text_to_image"] == {"recall_at_5": 66.6667, "caption_recall_at_5": None}
    assert metrics["counts"]["captions"] == 0
    assert "text_to_image.caption_recall_at_5" not in metrics["confidence"]


def test_fewer_images_than_k_all_vote():
    # At a high temperature every other image has nearly one vote. Class 1 outvotes the others, 3 to 2 or 1. For its own images it is
    # 2 to 2 to 2, and the sums of the cosines decide, class 0 : 1 : 2.
    # 90°: 0.34 : 1.31 : 0.17. 50°: 1.51 : 1.72 : −1.14. 33°: 1.81 : 1.50 : −1.57.
    found = scores_of(knn_k=21, knn_temperature=1e6)
    assert found.values["knn.accuracy"].tolist() == [False, False, True, True, False, False, False]


def test_classes_of_one_name():
    found = scores_of(names=["zero", "same", "same"])
    # "same" (class 1) and "same" (class 2) search one set of images: from 10° the images at 33°, 50° and 90° are hits for both.
    assert found.values["text_to_image.recall_at_5"].tolist() == [1, 1, 1]
    assert found.metrics["text_to_image"]["recall_at_5"] == 100
    # 170° and 180° pushed to the other class of that name are still right
    ensembles = at(0, 175, 300)
    assert scores_of(names=["zero", "same", "same"], name_ensembles=ensembles).values["zero_shot.accuracy"].tolist()[5:] == [True, True]
    assert scores_of(name_ensembles=ensembles).values["zero_shot.accuracy"].tolist()[5:] == [False, False]


def test_an_image_alone_in_its_class_is_no_retrieval_query():
    found = scores_of(classes=np.array([0, 0, 1, 1, 1, 2, 1]))
    assert np.isnan(found.values["image_to_image.map"]).tolist() == [False] * 5 + [True, False]
    assert np.isnan(found.values["image_to_image.recall_at_1"][5])
    assert found.metrics["image_to_image"]["recall_at_1"] == pytest.approx(
        100 * np.nanmean(found.values["image_to_image.recall_at_1"]), abs=1e-4
    )
    assert not found.values["knn.accuracy"][5]


def test_random_embeddings_score_chance():
    generator = np.random.default_rng(0)
    images, texts = generator.standard_normal((400, 8)), generator.standard_normal((40, 8))
    found = scores_of(
        images=images,
        classes=np.arange(400) // 10,
        names=[f"class {number}" for number in range(40)],
        families=[f"class {number}" for number in range(40)],
        siblings=np.zeros(40, bool),
        name_embeddings=texts,
        name_ensembles=texts,
        caption_images=[],
        knn_k=21,
    ).metrics
    assert found["image_to_image"]["map"] < 5
    assert found["zero_shot"]["accuracy"] < 6  # chance is 2.5
    assert found["knn"]["accuracy"] < 6
    low, high = found["confidence"]["average"]
    assert low < found["average"] < high
