"""The cosines of unrelated pairs and what a limit recovers, against the plain definitions on the whole matrix."""

import numpy as np
import pytest

from assets.pseudo_captions import nearness
from assets.pseudo_captions.nearness import recovery, unrelated


def random_case(seed):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((90, 6)).astype(np.float32) + 0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    own = [generator.choice(40, generator.integers(4), replace=False).tolist() for _ in range(50)]
    mine = np.zeros((50, 40), bool)
    for row, each in enumerate(own):
        mine[row, each] = True
    return vectors[:50], vectors[50:], own, mine


@pytest.mark.parametrize("rows_at_once", [7, 1024])
def test_mean_and_deviation_are_those_of_all_pairs_but_a_picture_and_its_own(rows_at_once, monkeypatch):
    """With its own among them, a folder of few classes would have no caption above the limit: own pairs are a tenth of all."""
    monkeypatch.setattr(nearness, "ROWS_AT_ONCE", rows_at_once)
    images, texts, own, mine = random_case(0)
    others = (images.astype(np.float64) @ texts.astype(np.float64).T)[~mine]
    found = unrelated(images, texts, own)
    assert found.mean == pytest.approx(others.mean(), abs=1e-6)
    assert found.deviation == pytest.approx(others.std(), abs=1e-6)
    assert found.limit(3.0) == pytest.approx(others.mean() + 3 * others.std(), abs=1e-5)


def test_the_limit_does_not_depend_on_what_cosines_of_a_base_are_like():
    """SigLIP's cosines are a third of CLIP's, and CLIP's never come near 0: the same pairs pass."""
    images, texts, own, _ = random_case(1)
    above = images @ texts.T >= unrelated(images, texts, own).limit(1.0)
    far = np.full((90, 1), 1.0, np.float32)
    images, texts = (np.concatenate([0.6 * each, 0.8 * far[: len(each)]], axis=1) for each in (images, texts))  # cosine → 0.36 cos + 0.64
    assert np.array_equal(images @ texts.T >= unrelated(images, texts, own).limit(1.0), above)


def test_an_embedding_that_is_not_finite_spoils_nothing():
    images, texts, own, _ = random_case(2)
    texts[3] = np.nan
    assert np.isfinite(unrelated(images, texts, own).limit(3.0))


def test_where_every_caption_is_everyones_own_none_is_near_enough():
    images, texts, _, _ = random_case(3)
    assert not (images @ texts.T >= unrelated(images, texts, [list(range(40))] * 50).limit(-100.0)).any()


@pytest.mark.parametrize("rows_at_once", [7, 1024])
def test_recovery_is_precision_and_recall_of_the_own_captions(rows_at_once, monkeypatch):
    monkeypatch.setattr(nearness, "ROWS_AT_ONCE", rows_at_once)
    images, texts, own, mine = random_case(4)
    findable = np.arange(40) % 3 > 0
    cosines, mine = (images @ texts.T)[:, findable], mine[:, findable]
    limits = sorted([-0.2, 0.0, float(cosines[0, 0]), 2.0])
    for limit, found in zip(limits, recovery(images, texts, own, findable, limits), strict=True):
        above = cosines >= np.float32(limit)
        assert found.recall == pytest.approx((above & mine).sum() / mine.sum())
        assert found.precision == pytest.approx((above & mine).sum() / max(1, above.sum()))
    assert found.f1 == 0.0
