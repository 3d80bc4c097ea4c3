"""Revisited Oxford and Paris: five pictures at 10° … 50°, queries at 0° and 50° within their boxes and at 119° and 136° with what surrounds
them; and the annotation's pickle."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from assets.errors import UserError
from assets.evaluation.benchmarks.revisited import UNCROPPED, measure_revisited, read_plain_pickle, read_revisited
from assets.table_1 import COLUMNS

# The first query ranks the pictures 0, 1, 2, 3, 4; easy are 0 and 4, hard is 2, junk is 1.
#   Easy: 1 and 2 are taken out, 0 and 4 rank 1 and 3:     AP (1 + (1/2 + 2/3)/2)/2 = 19/24, P@5 2/3 (up to rank 3)
#   Medium: 1 is taken out, 0, 2, 4 rank 1, 2, 4:          AP (1 + 1 + (2/3 + 3/4)/2)/3 = 65/72, P@5 3/4
#   Hard: 0, 1, 4 are taken out, 2 ranks first:            AP 1
# The second one finds itself (4, junk) and then 3, which is easy: AP 1; it has nothing hard.
EXPECTED = {
    "map_easy": (19 / 24 + 1) / 2,
    "precision_at_1_easy": 1,
    "precision_at_5_easy": (2 / 3 + 1) / 2,
    "precision_at_10_easy": (2 / 3 + 1) / 2,
    "map_medium": (65 / 72 + 1) / 2,
    "precision_at_1_medium": 1,
    "precision_at_5_medium": (3 / 4 + 1) / 2,
    "precision_at_10_medium": (3 / 4 + 1) / 2,
    "map_hard": 1,
    "precision_at_1_hard": 1,
    "precision_at_5_hard": 1,
    "precision_at_10_hard": 1,
}

# Uncropped, the first query ranks 4, 3, 2, 1, 0.
#   Easy: 1 and 2 are taken out, 4 and 0 rank 1 and 3:     AP 19/24, P@5 2/3
#   Medium: 1 is taken out, 4, 2, 0 rank 1, 3, 4:          AP (1 + (1/2 + 2/3)/2 + (2/3 + 3/4)/2)/3 = 55/72, P@5 3/4
#   Hard: 0, 1, 4 are taken out, 2 ranks second:           AP (0 + 1/2)/2 = 1/4, P@1 0, P@5 1/2 (up to rank 2)
# The second one finds 4 (junk) and then 3 again.
EXPECTED_UNCROPPED = {
    "map_easy_uncropped": (19 / 24 + 1) / 2,
    "precision_at_1_easy_uncropped": 1,
    "precision_at_5_easy_uncropped": (2 / 3 + 1) / 2,
    "precision_at_10_easy_uncropped": (2 / 3 + 1) / 2,
    "map_medium_uncropped": (55 / 72 + 1) / 2,
    "precision_at_1_medium_uncropped": 1,
    "precision_at_5_medium_uncropped": (3 / 4 + 1) / 2,
    "precision_at_10_medium_uncropped": (3 / 4 + 1) / 2,
    "map_hard_uncropped": 1 / 4,
    "precision_at_1_hard_uncropped": 0,
    "precision_at_5_hard_uncropped": 1 / 2,
    "precision_at_10_hard_uncropped": 1 / 2,
}


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_values_by_hand(replica, tools, name):
    found = measure_revisited(read_revisited(replica(name)), tools({}))
    assert found == {measure: round(100 * value, 4) for measure, value in (EXPECTED | EXPECTED_UNCROPPED).items()}


def test_a_query_of_the_official_protocol_is_its_box_alone(replica, tools):
    data = read_revisited(replica("roxford5k"))
    np.testing.assert_allclose(tools({}).encoder.images(data.queries)[0], [1, 0], atol=1e-6)  # 0°, not the grey around it
    assert data.pictures.crop is None
    assert data.whole_queries.crop is None
    assert data.whole_queries.names == data.queries.names


def test_the_paper_s_column_is_the_uncropped_one():
    """Set beside cropped queries, which find less around them, the paper's number would flatter it or us."""
    (column,) = [column for column in COLUMNS if column.benchmark == "roxford5k"]
    assert column.measure == "map_medium_uncropped"


def test_a_difficulty_that_no_query_has_is_left_out(replica, tools):
    data = read_revisited(replica("roxford5k"))
    nothing = np.zeros(0, np.int64)
    found = measure_revisited(data._replace(judged=[own | {"hard": nothing} for own in data.judged]), tools({}))
    assert {name.removesuffix(UNCROPPED).rpartition("_")[2] for name in found} == {"easy", "medium"}


@pytest.mark.parametrize("gone", ["gnd_rparis6k.pkl", "jpg/all_souls_2.jpg", "jpg/query_1.jpg"])
def test_the_first_missing_file_is_named(replica, gone):
    root = replica("rparis6k")
    (root / gone).unlink()
    with pytest.raises(UserError) as raised:
        read_revisited(root)
    assert str(raised.value) == f"{root / gone} is missing."


def rewrite(root: Path, **changed: object) -> None:
    path = root / f"gnd_{root.name}.pkl"
    annotation = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(annotation | changed))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"gnd": []}, "2 queries and 0 judgements"),
        ({"gnd": [{"bbx": [0, 0, 1, 1], "easy": [9], "hard": [], "junk": []}] * 2}, "beyond its list of 5"),
        ({"gnd": [{"bbx": [0, 0, 1], "easy": [0], "hard": [], "junk": []}] * 2}, "a box of four"),
        ({"gnd": [{"bbx": [0, 0, 1, 1], "ok": [0], "junk": []}] * 2}, "not the revisited annotation: KeyError 'easy'"),
        ({"imlist": 3}, "not the revisited annotation: TypeError"),
    ],
)
def test_an_annotation_that_is_another(replica, changed, told):
    root = replica("roxford5k")
    rewrite(root, **changed)
    with pytest.raises(UserError, match=told):
        read_revisited(root)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol_are_read(tmp_path, protocol):
    plain = {
        "rows": np.array([[3, 1], [2, 0]], order="F"),
        "none": np.zeros((0,), np.float32),
        "number": np.int64(7),
        "texts": np.array(["all_souls", "x"], dtype=object),
        "mixed": [(1, 2.5, "ü", b"\x00\xff", None, True)],
    }
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(plain, protocol=protocol))
    found = read_plain_pickle(path)
    np.testing.assert_array_equal(found["rows"], plain["rows"])
    assert (found["none"].shape, found["none"].dtype) == ((0,), np.float32)
    assert found["number"] == 7
    assert found["texts"].tolist() == ["all_souls", "x"]
    assert found["mixed"] == plain["mixed"]


class Touch:
    """What a hostile pickle does: calls a function when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Evaluate:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path, protocol):
    path, touched = tmp_path / "gnd.pkl", tmp_path / "touched"
    for hostile in ({"gnd": Touch(touched)}, np.array([Touch(touched)], dtype=object), Evaluate()):
        path.write_bytes(pickle.dumps(hostile, protocol=protocol))
        with pytest.raises(UserError, match=r"gnd\.pkl is not plain data: it asks for "):
            read_plain_pickle(path)
    assert not touched.exists()


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x04\x95\xff", pickle.dumps([1, 2, 3])[:-4]])
def test_a_damaged_pickle_is_named(tmp_path, damage):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(damage)
    with pytest.raises(UserError, match=r"gnd\.pkl cannot be read as a pickle"):
        read_plain_pickle(path)
