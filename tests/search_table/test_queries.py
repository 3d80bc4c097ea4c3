"""Known answers: what each kind of query must find, computed beside it from the table's own vectors."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from assets import artifacts
from assets.clip import readable
from assets.errors import UserError
from assets.metrics.cutoffs import best_cutoff, exceeded_by
from assets.params import read_params
from assets.search_table import embed, open_table, query, query_towers, search
from assets.search_table.calibration import calibrate
from assets.search_table.cutoff import meaning
from assets.search_table.filters import checked_filter
from assets.search_table.query import search_each
from assets.search_table.stage import publish
from assets.search_table.versions import roll_back
from tests.search_table.conftest import RECIPE, curated_rows, write_curated


@pytest.fixture
def table(published: Path) -> dict[str, np.ndarray]:
    """The vectors by id, float64."""
    rows = open_table().to_arrow().to_pylist()
    return {row["id"]: np.array(row["vector"], np.float64) for row in rows}


def nearest(table: dict[str, np.ndarray], vector: np.ndarray, k: int) -> list[str]:
    return sorted(table, key=lambda key: (-(table[key] @ vector), key))[:k]


def ids(hits) -> list[str]:
    return hits["id"].to_pylist()


def test_several_queries_are_one_weighted_sum(table):
    """Weights were left out, or each query was searched alone."""
    text, other = embed(["a red heart", "a sailboat"]).astype(np.float64)
    picture = table["vendor2/1"]
    wanted = 2 * text - 0.5 * other + picture
    hits = search([("a red heart", 2.0), ("a sailboat", -0.5)], k=5, like="vendor2/1")
    assert ids(hits) == [key for key in nearest(table, wanted, 6) if key != "vendor2/1"][:5]
    cosines = np.array([table[key] for key in ids(hits)]) @ wanted / np.linalg.norm(wanted)
    assert np.allclose(1 - hits["_distance"].to_numpy(), cosines, atol=1e-5)
    assert ids(search([("a red heart", 3.0)], k=5)) == ids(search("a red heart", k=5))


def test_more_like_this_leaves_out_the_picture_itself(table):
    assert ids(search(like="vendor2/1", k=4)) == nearest(table, table["vendor2/1"], 5)[1:]
    both = table["vendor2/1"] - 0.25 * table["vendor0/3"]
    wanted = [key for key in nearest(table, both, 10) if key not in ("vendor2/1", "vendor0/3")]
    assert ids(search(like=["vendor2/1", ("vendor0/3", -0.25)], k=4)) == wanted[:4]
    with pytest.raises(UserError, match=r"no picture with the id \"it's\""):
        search(like="it's")


def test_pages_join_to_the_whole_and_name_their_version(table):
    whole = search("a red heart", k=26)
    pages = [search("a red heart", k=7, offset=start) for start in range(0, 28, 7)]
    assert [key for page in pages for key in ids(page)] == ids(whole)
    version = int(whole.schema.metadata[b"version"])
    assert search("a red heart", k=7, offset=7, version=version).equals(pages[1])
    assert search("a red heart", offset=99).num_rows == 0


def test_words_alone_and_hybrid(table):
    """«dusk» is one picture's caption, which a random model does not find: fusion must lift it, the words alone find nothing else."""
    assert ids(search("dusk", by="text")) == ["b.png"]
    assert "_score" in search("dusk", by="text").column_names
    assert {key[-2:] for key in ids(search("sailboat", by="text"))} == {"/3"}  # a class name is the caption
    assert ids(search("dusk", by="text", where="split = 'train'")) == []
    hybrid, plain = search("dusk", k=26, by="hybrid"), search("dusk", k=26)
    rank = {key: 1 / (60 + position) for position, key in enumerate(ids(plain), start=1)}
    rank["b.png"] += 1 / 61
    scores = hybrid["_relevance_score"].to_numpy()
    assert (np.diff(scores) <= 0).all()
    assert ids(hybrid)[0] == max(rank, key=lambda key: rank[key])
    assert ids(search("dusk", k=1, by="hybrid")) == ids(hybrid)[:1], "the first hit must not depend on k"
    query = embed("dusk")[0]
    assert np.allclose(1 - hybrid["_distance"].to_numpy(), [table[key] @ query for key in ids(hybrid)], atol=1e-5)
    assert ids(search("dusk", k=26, by="hybrid", where="split <> 'library'")) != []
    assert "b.png" not in ids(search("dusk", k=26, by="hybrid", where="split <> 'library'"))


def test_a_cutoff_is_a_cosine_or_the_tables_calibration(table):
    cosines = 1 - search(like="vendor2/1", k=25)["_distance"].to_numpy()
    lowest = float(cosines[4]) - 1e-6
    assert search(like="vendor2/1", k=25, cutoff=lowest).num_rows == 5
    assert search(like="vendor2/1", k=25, cutoff=-1).num_rows == 25
    known = artifacts.read_json(artifacts.TABLE_MANIFEST)["similarity"]
    assert known["picture"]["same"] is None, "the one test class has no pair of another class"
    with pytest.raises(UserError, match=r"does not know from which cosine .* picture query is 'same'.*Give a cosine"):
        search(like="vendor2/1", cutoff="same")
    for wrong in ("often", 2, True, float("nan")):
        with pytest.raises(UserError, match="must be 'same', 'related', or a cosine"):
            search("a red heart", cutoff=wrong)
    with pytest.raises(UserError, match="compares words alone"):
        search("dusk", by="text", cutoff=0.5)


def test_calibration_by_hand():
    """In the plane: two classes at 0° and 90°, one picture astray; names lie on their class."""
    angles = np.radians([0, 5, 10, 90, 95, 60])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.array(["a", "a", "a", "b", "b", "b"], object)
    names = np.array([[1, 0], [0, 1]], np.float32)
    found = calibrate(images, labels, names, np.array(["a", "b"], object))
    same = found["picture"]
    assert same["same"] == pytest.approx(np.cos(np.radians(35)), abs=2e-3)  # 60° and 95° are one class, 10° and 60° are not
    assert (same["precision"], same["recall"]) == (1, 1)
    assert same["related"] == pytest.approx(np.cos(np.radians(50)), abs=2e-3)
    assert found["text"]["same"] == pytest.approx(np.cos(np.radians(30)), abs=2e-3)
    assert len(meaning(found)) == 4
    assert calibrate(images[:3], labels[:3], names[:1], np.array(["a"], object))["picture"]["same"] is None
    assert calibrate(images[:0], labels[:0], np.zeros((0, 2), np.float32), labels[:0])["text"]["same"] is None


def test_best_cutoff_against_all_thresholds():
    generator = np.random.default_rng(0)
    right, wrong = generator.normal(0.5, 0.2, 40).round(1), generator.normal(0.1, 0.2, 200).round(1)  # with ties

    def f1(cosine):
        found = (right >= cosine).sum()
        return 2 * found / (found + (wrong >= cosine).sum() + len(right))

    best = best_cutoff(right, wrong)
    every = sorted(set(right) | set(wrong), reverse=True)
    assert best.cosine == max(every, key=f1)
    assert best.recall == (right >= best.cosine).mean()
    assert exceeded_by(np.arange(101.0), 0.1) == 90
    with pytest.raises(ValueError, match="no right pair"):
        best_cutoff(right[:0], wrong)


def test_nearly_identical_hits_fold_into_the_best(tmp_path, unpublished, settings_with):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("near_identical: 0.98", "near_identical: 0.9999"))  # a random model finds all alike
    rows = curated_rows()
    shifted = io.BytesIO()
    picture = Image.open(io.BytesIO(rows[0]["image"]))
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(shifted, "PNG")
    write_curated([*rows, rows[0] | {"id": "twin", "image": shifted.getvalue(), "split": "library", "label": None}])
    publish(settings_with(), RECIPE)
    plain, folded = search(rows[0]["image"], k=4), search(rows[0]["image"], k=4, fold=True)
    assert set(ids(plain)[:2]) == {rows[0]["id"], "twin"}
    assert ids(folded)[0] == rows[0]["id"]
    assert "twin" not in ids(folded)
    assert folded["folded"][0].as_py() == 1
    assert len(folded) == 4
    assert "vector" not in folded.column_names
    assert search(rows[0]["image"], k=99, fold=True).num_rows <= 26


def test_many_queries_at_once_are_the_single_ones(table):
    picture = open_table().to_arrow().to_pylist()[3]["image"]
    found = search_each(["a red heart", picture, "a sailboat"], k=4, where="width = 48")
    for number, one in enumerate(["a red heart", picture, "a sailboat"]):
        own = found.filter(np.array(found["query_index"]) == number)
        assert ids(own) == ids(search(one, k=4))
    assert ids(search_each(["a red heart"], k=4)) == ids(search("a red heart", k=4))
    with pytest.raises(UserError, match="no queries"):
        search_each([])


def test_plain_lancedb_finds_by_words_once_the_function_is_imported(table):
    """Without it LanceDB raises KeyError('onespace'); with LanceDB's own open-clip function vectors are wrong outside eval mode."""
    import assets.search_table.embedding_function

    hits = open_table().search("a red heart").distance_type("cosine").limit(5).to_arrow()
    assert ids(hits) == ids(search("a red heart", k=5))
    picture = Image.open(io.BytesIO(search("a red heart", k=1)["image"][0].as_py()))
    hits = open_table().search(picture).distance_type("cosine").limit(1).to_arrow()
    assert ids(hits) == ids(search("a red heart", k=1))
    assert assets.search_table.embedding_function.OnespaceEmbedding(made_by=hits["model"][0].as_py()).ndims() == 16


def test_an_earlier_version_answers_by_its_own_rows(unpublished, settings_with):
    publish(settings_with(), RECIPE)
    before = search("a red heart", k=26)
    write_curated(curated_rows(per_class=5))
    publish(settings_with(), RECIPE)
    assert search("a red heart", k=26).num_rows == 22
    assert search("a red heart", k=26, version="publish-0001").equals(before)
    with pytest.raises(UserError, match=r"no version 'publish-0009'.*make versions"):
        search("a red heart", version="publish-0009")
    roll_back("publish-0001")
    assert ids(search("a red heart", k=26)) == ids(before)


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("source = 'noto' AND width >= 64", "((`source` = 'noto') AND (`width` >= 64))"),
        ("group is not null or not (id in ('a', 'it''s'))", "((NOT (`group` IS NULL)) OR (NOT (`id` IN ('a', 'it''s'))))"),
        ("class_name not like 'red%'", "(NOT (`class_name` LIKE 'red%'))"),  # «not» was lost: it is a part of the node
        ("width between -1 and 48", "(`width` BETWEEN -1 AND 48)"),
        ("lower(caption) = 'x' -- and more", "(lower(`caption`) = 'x')"),
        ("array_contains(captions, 'love')", "array_has(`captions`, 'love')"),
    ],
)
def test_filters_are_written_anew(given, understood, table):
    assert checked_filter(given) == understood
    search("a red heart", where=given)


@pytest.mark.parametrize(
    "where",
    [
        "1 = (select count(*) from images)",
        "id in (select id from images)",
        "read_text('/etc/passwd') = 'x'",
        "source = 'noto'; drop table images",
        "drop table images",
        "width::string = '48'",
        "width + 1 = 49",
        "images.id = 'a'",
        "image is null",
        "vector is null",
        "caption ~ 'a*'",
        "caption like any ('a', 'b')",
        "caption like 'a' escape '!'",
        "case when width = 1 then true else false end",
        "id = $1",
        "(" * 3000 + "width = 1" + ")" * 3000,
        " and ".join(["width = 48"] * 4000),
        "\0",
        "width = 1e",
    ],
)
def test_nothing_else_reaches_the_table(where, published):
    with pytest.raises(UserError, match="A filter is a condition such as"):
        checked_filter(where)


def test_wrong_arguments_say_what_is_right(table):
    for arguments, said in (
        ({}, "nothing to look for"),
        ({"query": []}, "nothing to look for"),
        ({"query": "x", "by": "magic"}, "by is 'magic'; it must be one of vector, text, hybrid"),
        ({"like": "vendor2/1", "by": "hybrid"}, "compares words, and the query has none"),
        ({"query": [("x", 0)]}, "weight other than 0"),
        ({"query": [("x", float("inf"))]}, "weight other than 0"),
        ({"query": [("x", 1, 2)]}, r"a tuple is \(query, weight\)"),
        ({"query": [("x", 1.0), ("x", -1.0)]}, "cancel out"),
        ({"query": "x", "offset": -1}, "offset is -1"),
        ({"like": [5]}, "like takes ids"),
        ({"query": "x", "where": 5}, "a filter is a str"),
    ):
        with pytest.raises(UserError, match=said):
            search(**arguments)


def test_a_table_whose_model_gives_other_dimensions_is_refused(published, tmp_path, monkeypatch):
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("assets.search_table.query.vectors_of", lambda *_: np.eye(1, 8, dtype=np.float32))
    with pytest.raises(UserError, match="has vectors of 16 dimensions, its model gives 8"):
        search("a red heart")


def test_both_ways_of_reading_a_query_give_the_same_advice():
    """The sentence stands twice: query_towers.py must not load torch, which readable.py does."""
    assert query_towers.ANOTHER_BASE == readable.ANOTHER_BASE


def test_no_hits_are_an_empty_table(table):
    """Folding none, or joining none with none, ended in a traceback."""
    nothing = "source = 'nowhere'"
    for found in (
        search("love", where=nothing),
        search("love", where=nothing, fold=True),
        search("love", where=nothing, by="hybrid"),
        search("love", by="hybrid", among=[]),
        search("qqqq", by="text", fold=True),
        search("love", cutoff=1.0, fold=True),
    ):
        assert found.num_rows == 0 and "class_name" in found.column_names


def test_hybrid_pages_are_of_one_ranking_and_a_cutoff_leaves_out_no_page(table, monkeypatch):
    """Each page was of a ranking of its own depth, and hits beyond the cutoff took others' places."""
    own = read_params()[0]
    few = own.model_copy(update={"search": own.search.model_copy(update={"max_hits": 12})})
    monkeypatch.setattr(query, "settings", lambda: few)  # the rankings are joined to this depth, of 26 rows
    whole = ids(search("love", k=26, by="hybrid"))
    pages = [key for offset in range(0, 12, 3) for key in ids(search("love", k=3, by="hybrid", offset=offset))]
    assert pages == ids(search("love", k=12, by="hybrid")) and sorted(whole) == sorted(table)
    asked = embed("love")[0].astype(np.float64)
    cosines = {key: vector @ asked for key, vector in table.items()}
    lowest = sorted(cosines.values())[-6] - 1e-5
    near = {key for key, cosine in cosines.items() if cosine >= lowest}
    monkeypatch.setattr(query, "settings", lambda: own)
    assert set(ids(search("love", k=6, by="hybrid", cutoff=lowest))) == near == set(ids(search("love", k=6, cutoff=lowest)))


def test_rounding_leaves_no_picture_out_at_a_cutoff_of_1():
    """A table's own picture had a distance of 2e-7, and was not among its hits."""
    hits = pa.table({"_distance": pa.array([-1e-7, 2e-7, 1e-4], pa.float32())})
    assert query._above(hits, 1.0).num_rows == 2 and query._above(hits, None).num_rows == 3


def test_numbers_of_any_size_and_of_numpy(table):
    """Weights overflowed to no hits at all, numbers beyond 64 bits ended in a traceback, numpy's were refused."""
    assert ids(search([("love", 1e200), ("a cat", 1e200)], k=5)) == ids(search(["love", "a cat"], k=5))
    assert ids(search([("love", 1e-9)], k=5)) == ids(search("love", k=5)) == ids(search([("love", np.float32(0.5))], k=np.int64(5)))
    assert search("love", k=10**30).num_rows == 26 and search("love", offset=10**30).num_rows == 0
    assert search("love", k=2**62, fold=True).num_rows
    assert ids(search("love", cutoff=np.float32(-1), k=3)) == ids(search("love", k=3))
    for weight in (10**400, float("inf"), True, 0):
        with pytest.raises(UserError, match="a tuple is \\(query, weight\\) with a finite weight"):
            search([("love", weight)])
    with pytest.raises(UserError, match="cutoff is"):
        search("love", cutoff=np.array([0.5, 0.1]))


def test_half_a_character_is_named(table):
    for asked in ({"query": "\ud800"}, {"query": "\ud800", "by": "text"}, {"like": "\ud800"}, {"query": "love", "among": ["\ud800"]}):
        with pytest.raises(UserError, match=r"holds half a character"):
            search(**asked)
    with pytest.raises(UserError, match="among takes ids of the table"):
        search("love", among=[1])
    for by in ("text", "hybrid"):
        with pytest.raises(UserError, match="compares words, and the query has none"):
            search("  ", by=by)


def test_one_query_is_no_list_of_letters(table):
    assert set(search_each("ab", k=3)["query_index"].to_pylist()) == {0}
    assert search_each(iter(["a cat", "love"]), k=3).num_rows == 6


def test_a_filter_that_would_keep_the_parser_busy_is_refused_and_a_long_one_is_not(table):
    """Forty times «not» took hours, and two such requests stopped the service; 46 times «or» was refused."""
    for number in (24, 40, 500):
        with pytest.raises(UserError, match="it is nested too deeply"):
            search("love", where="not " * number + "width = 48")
    assert search("love", where="not " * 6 + "width = 48", k=26).num_rows == 26
    chain = " or ".join(["id = 'nobody'"] * 200 + ["id = 'a.png'"])
    assert ids(search("love", where=chain)) == ["a.png"]
    assert ids(search("love", where=f"not ({chain}) and id <> 'b.png' and split = 'library'")) == []
    assert checked_filter("id = '(((((((((((((((((((((((((('")


def test_rows_of_another_model_are_refused(unpublished, tmp_path):
    """Plain LanceDB had appended them, and results held both models' without a word."""
    publish(read_params()[0].search_table, RECIPE)
    rows = open_table().to_arrow().slice(0, 2).to_pylist()
    others = [row | {"id": f"new{number}", "model": "other@0123"} for number, row in enumerate(rows)]
    open_table().add(pa.Table.from_pylist(others, open_table().schema))
    with pytest.raises(UserError, match=r"the table's rows are of 2 model\(s\), .*other@0123.* cannot be compared"):
        search("love")
    open_table().delete("id is not null")
    for by in ("vector", "text"):
        with pytest.raises(UserError, match="the table has no rows"):
            search("love", by=by)


def test_a_table_with_files_that_are_gone_is_called_damaged(unpublished):
    publish(read_params()[0].search_table, RECIPE)
    for file in (artifacts.LANCEDB / "images.lance/data").iterdir():
        file.unlink()
    for asked in ({}, {"where": "width = 48"}, {"by": "text"}, {"by": "hybrid"}):
        with pytest.raises(UserError, match=r"the table at data/lancedb is damaged, a file of it is cut or gone"):
            search("love", **asked)
    for file in (artifacts.LANCEDB / "images.lance/_versions").glob("*.manifest"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"the table at data/lancedb is damaged"):
        search("love")
