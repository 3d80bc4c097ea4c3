"""A label that every neighbour contradicts is listed; a class of its own, however near to another, is not."""

from __future__ import annotations

import numpy as np
import pytest

from assets.report import doubtful


def embeddings() -> tuple[list[str], np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    labels = np.repeat(np.array(["cat", "dog", "owl"], dtype=object), 8)
    centres = np.repeat(np.eye(8)[:3], 8, axis=0)
    vectors = centres + 0.1 * chance.normal(size=centres.shape)
    labels[3] = "dog"  # it lies among the cats
    vectors[20] = vectors[1] + 0.001  # an owl like a cat
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [f"p{number:02}" for number in range(len(labels))], labels, vectors.astype(np.float32)


@pytest.mark.parametrize("exact", [True, False])
def test_contradicted_labels_and_pictures_taken_for_one(monkeypatch, exact):
    if not exact:
        monkeypatch.setattr(doubtful, "EXACT", 4)
    ids, labels, vectors = embeddings()
    near = doubtful.neighbours(vectors)
    found = doubtful.contradicted(ids, labels.tolist(), labels, near)
    assert "p03" in {each["id"] for each in found} <= {"p03", "p20"}
    row = next(each for each in found if each["id"] == "p03")
    assert row["detail"].endswith("are of class cat, none of its own class dog")
    assert labels[ids.index(row["other"])] == "cat"
    assert ("p20", "p01") in {(each["id"], each["other"]) for each in doubtful.taken_for_one(ids, labels, near)}


def test_too_few_pictures_say_nothing():
    one = np.ones((1, 4), np.float32) / 2
    assert doubtful.contradicted(["a"], ["cat"], np.array(["cat"], dtype=object), doubtful.neighbours(one)) == []
    same = np.repeat(one, 9, axis=0)  # nine copies with one vector
    labels = np.array(["cat"] * 9, dtype=object)
    assert doubtful.contradicted(list("abcdefghi"), labels.tolist(), labels, doubtful.neighbours(same)) == []
