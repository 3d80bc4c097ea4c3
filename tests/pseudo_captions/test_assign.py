import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.errors import UserError
from assets.pseudo_captions.assign import assign_captions
from assets.pseudo_captions.clusters import cluster_captions
from assets.pseudo_captions.corpus import distinct_captions, read_corpus


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_own_first_then_the_most_similar_one_a_cluster():
    # captions at 0°, 5°, 10°, 40°, 80°; the first two share a cluster
    texts, clusters = at(0, 5, 10, 40, 80), np.array([0, 0, 1, 2, 3])
    images = at(1, 79)
    found = assign_captions(images, texts, clusters, [[], [3]], top_k=2, min_similarity=0.5)
    # image 0: caption 0 (1° away), not 1 (same cluster), then 2; 40° is third. Image 1: its own 3, then 4; 2 is beyond cos 0.5 (69° away)
    assert found == [[0, 2], [3, 4]]


def test_nothing_above_the_threshold_leaves_its_own_captions():
    found = assign_captions(at(90), at(0, 10), np.array([0, 1]), [[1]], top_k=5, min_similarity=0.27)
    assert found == [[1]]


def test_a_found_caption_is_never_of_the_cluster_of_an_own_one():
    found = assign_captions(at(0), at(0, 1), np.array([4, 4]), [[1]], top_k=5, min_similarity=0.0)
    assert found == [[1]]


def test_equal_cosines_go_by_caption_number():
    found = assign_captions(at(0), at(10, -10), np.array([0, 1]), [[]], top_k=1, min_similarity=0.0)
    assert found == [[0]]


def test_clusters_bring_duplicates_together_and_are_repeatable():
    texts = np.concatenate([at(0, 90, 180), at(0.01, 90.01, 180.01)])
    clusters = cluster_captions(texts, 3, seed=0)
    assert clusters[:3].tolist() == clusters[3:].tolist()
    assert len(set(clusters.tolist())) == 3
    assert cluster_captions(texts, 3, seed=0).tolist() == clusters.tolist()


def test_more_clusters_than_captions_is_one_each():
    assert len(set(cluster_captions(at(0, 90), 10, seed=0).tolist())) == 2


def test_distinct_captions_ignore_case_width_and_space():
    assert distinct_captions(["Red  heart", "red heart", " ", "ＲＥＤ HEART", "blue heart"]) == ["Red  heart", "blue heart"]


def test_corpus_files(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    pq.write_table(pa.table({"caption": ["three", None]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": ["four"]}), tmp_path / "c.parquet")
    assert read_corpus([str(tmp_path / "a.txt"), str(tmp_path / "b.parquet")]) == ["one", "two", "three"]
    with pytest.raises(UserError, match="no column 'caption', only text"):
        read_corpus([str(tmp_path / "c.parquet")])
    with pytest.raises(UserError, match="not a file"):
        read_corpus(["absent.txt"])
    (tmp_path / "d.csv").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="neither"):
        read_corpus([str(tmp_path / "d.csv")])


def test_a_corpus_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"caption": [1, 2]}), tmp_path / "numbers.parquet")
    for name, message in (("latin.txt", "not UTF-8"), ("broken.parquet", "not a readable Parquet"), ("numbers.parquet", "type int64")):
        with pytest.raises(UserError, match=f"{name}.*{message}"):
            read_corpus([str(tmp_path / name)])
