import numpy as np
import pyarrow as pa
import torch

from assets.training.texts import image_texts

ROWS = pa.table(
    {
        "label": ["a", "a", "b", "c"],
        "class_name": ["apple", "apple", "bat", "cat"],
        "captions": [["fruit", "red"], [], ["animal"], ["animal", "pet", "animal"]],
    }
)


def words(texts, row):
    return sorted(texts.vocabulary[i] for i in texts.ids[row][: texts.counts[row]])


def test_captions_with_the_class_name_where_there_is_none():
    texts = image_texts(ROWS, with_class_names=False)
    assert [words(texts, row) for row in range(4)] == [["fruit", "red"], ["apple"], ["animal"], ["animal", "pet"]]


def test_captions_and_class_names():
    texts = image_texts(ROWS, with_class_names=True)
    assert [words(texts, row) for row in range(4)] == [["apple", "fruit", "red"], ["apple"], ["animal", "bat"], ["animal", "cat", "pet"]]


def test_draw_takes_only_own_texts_and_every_one_of_them():
    texts = image_texts(ROWS, with_class_names=True)
    rows = np.repeat(np.arange(4), 200)
    drawn = texts.draw(rows, torch.Generator().manual_seed(0))
    for row in range(4):
        assert sorted({texts.vocabulary[i] for i in drawn[rows == row]}) == words(texts, row)


def test_related_pairs_share_the_text_or_the_class():
    texts = image_texts(ROWS, with_class_names=True)
    number = texts.vocabulary.index
    rows = np.array([0, 1, 2, 3])
    related = texts.related(rows, rows, np.array([number("fruit"), number("apple"), number("animal"), number("pet")]))
    assert related.tolist() == [
        [True, True, False, False],  # apples share their class
        [True, True, False, False],
        [False, False, True, False],  # the bat has "animal" too, but not "pet"
        [False, False, True, True],  # the cat has "animal"
    ]


def test_candidates_are_all_texts_where_there_are_few():
    texts = image_texts(ROWS, with_class_names=False)
    assert texts.candidates(np.array([0]), 5, torch.Generator()).tolist() == [0, 1, 2, 3, 4]


def test_of_many_texts_the_batch_s_own_are_always_candidates():
    texts = image_texts(ROWS, with_class_names=False)
    for seed in range(20):
        rows = np.array([1, 3])
        chosen = texts.candidates(rows, 1, torch.Generator().manual_seed(seed))
        assert (np.diff(chosen) > 0).all() and chosen.min() >= 0
        assert {"apple", "animal", "pet"} <= {texts.vocabulary[number] for number in chosen}
        assert len(chosen) <= 4, "own texts and one drawn text"


def test_own_texts_and_those_of_the_class_among_the_candidates():
    texts = image_texts(ROWS, with_class_names=False)
    words = ["animal", "apple", "fruit", "pet"]  # "red" is no candidate
    chosen = np.array([texts.vocabulary.index(word) for word in words])
    rows = np.array([1, 3, 0])
    assert texts.own(rows, chosen).tolist() == [
        [False, True, False, False],
        [True, False, False, True],
        [False, False, True, False],
    ]
    assert texts.of_class(rows, chosen).tolist() == [
        [False, True, True, False],  # the other apple's "fruit"
        [True, False, False, True],
        [False, True, True, False],
    ]
