from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import lancedb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from assets import artifacts, params
from assets.clip.encoding import encode_texts
from assets.clip.model import load_clip
from assets.errors import UserError
from assets.search_table import embed, open_table, search
from assets.search_table.__main__ import main
from assets.search_table.query_pictures import QueryPictures
from assets.search_table.stage import publish
from assets.search_table.table import METADATA, MODELS
from tests.models import write_model
from tests.search_table.conftest import CLASSES, RECIPE, make_workplace


def rows() -> list[dict]:
    return open_table().to_arrow().to_pylist()


def test_text_search_ranks_by_cosine_distance(published: Path) -> None:
    model, _, tokenizer = load_clip(artifacts.model_dir(RECIPE))
    vector = encode_texts(model, tokenizer, ["a red heart"], batch_size=1, device="cpu", precision="fp32")[0].astype(np.float64)
    table = rows()
    distances = 1 - np.array([row["vector"] for row in table], np.float64) @ vector
    order = np.argsort(distances)[:7]
    hits = search("a red heart", k=7)
    assert hits.column_names == [*METADATA.names, "_distance"]
    assert hits["id"].to_pylist() == [table[row]["id"] for row in order]
    assert np.allclose(hits["_distance"].to_numpy(), distances[order], atol=1e-5)


def test_a_stored_picture_finds_itself(published: Path, tmp_path: Path) -> None:
    for row in rows()[::6]:
        (tmp_path / "query.png").write_bytes(row["image"])
        for query in (row["image"], tmp_path / "query.png", Image.open(tmp_path / "query.png")):
            hits = search(query, k=3)
            assert hits["id"][0].as_py() == row["id"]
            assert hits["_distance"][0].as_py() == pytest.approx(0, abs=1e-5)
            assert hits["_distance"][1].as_py() > 1e-3
            assert hits["image"][0].as_py() == row["image"]


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "YCbCr", "PA"])
def test_pictures_in_memory_of_any_mode(published: Path, mode: str) -> None:
    row = rows()[3]
    picture = Image.open(io.BytesIO(row["image"])).convert("RGB")
    picture = picture.convert("P").convert("PA") if mode == "PA" else picture.convert(mode)
    assert search(picture, k=1)["id"].to_pylist() == [row["id"]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I", "F", "I;16"])
def test_grey_pictures_in_memory(published: Path, mode: str) -> None:
    grey = Image.open(io.BytesIO(rows()[3]["image"])).convert("L")
    levels = np.asarray(grey)
    deep = {
        "I": lambda: Image.fromarray(levels.astype(np.int32) * 257),
        "F": lambda: Image.fromarray(levels.astype(np.float32) / 255),
        "I;16": lambda: Image.fromarray(levels.astype("<u2") * 257),
        "1": lambda: grey.point(lambda level: 255 * (level > 127)).convert("1"),
    }.get(mode, lambda: grey.convert(mode))()
    assert deep.mode == mode
    same = grey.point(lambda level: 255 * (level > 127)) if mode == "1" else grey
    assert search(deep, k=5)["id"].to_pylist() == search(same, k=5)["id"].to_pylist()
    assert np.allclose(search(deep, k=5)["_distance"].to_numpy(), search(same, k=5)["_distance"].to_numpy(), atol=1e-3)


def test_a_photo_lying_on_its_side_is_turned(published: Path) -> None:
    row = rows()[3]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned right by 90°
    sideways = Image.open(io.BytesIO(row["image"])).transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    sideways.save(buffer, "PNG", exif=exif)
    for query in (buffer.getvalue(), Image.open(buffer)):
        assert search(query, k=1)["_distance"][0].as_py() == pytest.approx(0, abs=1e-5)


def test_where_filters_before_ranking(published: Path) -> None:
    first = search("a red heart", k=1)["class_name"][0].as_py()
    other = next(name for name in CLASSES if name != first)
    hits = search("a red heart", k=6, where=f"class_name = '{other}' and width >= 48")
    assert hits["class_name"].to_pylist() == [other] * 6
    assert search("a red heart", where="split = 'library'").num_rows == 2
    assert search("a red heart", where="width > 1000").num_rows == 0


def test_k(published: Path) -> None:
    assert search("a red heart").num_rows == 10
    assert search("a red heart", k=10**15).num_rows == 26
    for k in (0, -3, 2.0, True, "5"):
        with pytest.raises(UserError, match=r"k is .* at least 1"):
            search("a red heart", k=k)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["colour = 'red'", "width >", "width = 'wide'", "width", "", "source = noto; drop"])
def test_bad_filter_shows_the_columns(published: Path, where: str) -> None:
    with pytest.raises(UserError, match=r"(?s)does not understand the filter .*class_name string.*width int32"):
        search("a red heart", where=where)


def test_bad_queries(published: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match=r"the query is empty"):
        search("  ")
    with pytest.raises(UserError, match=r"notes.txt is undecodable"):
        search(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"absent.png cannot be read.*No such file"):
        search(Path("absent.png"))
    with pytest.raises(UserError, match=r"cannot be read"):
        search(tmp_path)
    with pytest.raises(UserError, match=r"the picture is undecodable"):
        search(b"")
    with pytest.raises(UserError, match=r"given float"):
        search([1.0, 2.0])  # type: ignore[arg-type]
    closed = Image.open(io.BytesIO(rows()[0]["image"]))
    closed.close()
    with pytest.raises(UserError, match=r"the picture cannot be read"):
        search(closed)


def test_a_query_of_which_the_model_knows_nothing_is_refused(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """😀, 🚗 and a very long word found the same pictures, without a word: each is one unknown token."""
    write_model(tmp_path / "model", "timm_and_hugging_face")
    (tmp_path / "place").mkdir()
    make_workplace(tmp_path / "place", checkout, tmp_path / "model", monkeypatch)
    publish(params.read_params()[0].search_table, RECIPE)
    for query in ("😀", "🚗 猫", "x" * 120):
        with pytest.raises(UserError, match=rf"cannot read the query '{query[:60]}.*Search by a picture.*multilingual base"):
            search(query)
        with pytest.raises(UserError, match="cannot read the query"):
            embed(["a red heart", query])
    assert main(["猫"]) == 1
    assert "cannot read the query '猫'" in capsys.readouterr().err
    assert not caplog.records
    assert search("a red heart", k=1).num_rows == 1
    assert not caplog.records
    search("a red 猫")
    assert "does not know 1 of the 3 parts of the query 'a red 猫'" in caplog.text
    search("red " * 15)
    assert "its end is left out" in caplog.text


def test_a_path_as_str_is_text(published: Path, tmp_path: Path) -> None:
    (tmp_path / "query.png").write_bytes(rows()[0]["image"])
    assert search(str(tmp_path / "query.png"), k=1)["_distance"][0].as_py() > 0.01


def test_oversized_picture(published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("max_megapixels: 100", "max_megapixels: 0.001"))
    with pytest.raises(UserError, match=r"too_large: 48 x 40 pixels, more than the 1,000 allowed"):
        search(rows()[0]["image"])


def test_another_model_is_refused(published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Distances between the vectors of two models mean nothing, and look like any others."""
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    answers = search("a red heart")
    (beside,) = MODELS.iterdir()
    (artifacts.model_dir(RECIPE) / "model_card.json").write_text("{}")
    assert search("a red heart").equals(answers)  # by the model beside the table
    (beside / "model_card.json").write_text("{ }")
    with pytest.raises(
        UserError, match=rf"made by {beside.name}, but {beside} is now .* and data/models/mcip_rea is now mcip_rea@\w{{12}}"
    ):
        search("a red heart")
    shutil.rmtree(beside)
    shutil.rmtree(artifacts.model_dir(RECIPE))
    with pytest.raises(UserError, match=r"data/models/mcip_rea is not there.*make versions.*make rollback VERSION=.*dvc checkout"):
        search("a red heart")


def test_no_table(unpublished: Path) -> None:
    for attempt in (open_table, lambda: search("a red heart")):
        with pytest.raises(UserError, match=r"no table 'images' in data/lancedb.*(--single-item search_table|make demo)"):
            attempt()
    assert not artifacts.LANCEDB.exists()


def test_the_table_is_plain(published: Path) -> None:
    assert lancedb.connect("data/lancedb").open_table("images").count_rows() == 26


def test_duckdb(published: Path) -> None:
    table = open_table()
    images = table.to_lance()  # noqa: F841 (duckdb finds it by name)
    counts = duckdb.sql("select class_name, count(*) n from images group by 1 order by n desc, 1 limit 5").fetchall()
    assert counts == [(name, 6) for name in sorted(CLASSES)] + [("", 2)]


def test_polars(published: Path) -> None:
    images = open_table().to_lance()
    found = pl.scan_pyarrow_dataset(images).filter(pl.col("group") == "symbols").group_by("class_name").len().sort("class_name").collect()
    assert found.to_dicts() == [{"class_name": "blue heart", "len": 6}, {"class_name": "red heart", "len": 6}]


def test_command_line(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a red heart", "-k", "3", "--where", "class_name = 'cat face'"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["rank", "distance", "class_name", "caption", "source", "id"]
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all("cat face" in line and "vendor" in line and len(line) <= len(head) + 40 for line in lines)

    row = rows()[2]
    (tmp_path / "query.png").write_bytes(row["image"])
    assert main(["--image", str(tmp_path / "query.png"), "-k", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split()[:2] in (["1", "0.0000"], ["1", "-0.0000"])
    assert line.rstrip().endswith(row["id"])
    assert main([str(tmp_path / "query.png"), "-k", "1"]) == 0  # a word, as far as we can tell
    assert "--image" in capsys.readouterr().err

    assert main(["a red heart", "--where", "colour = 1"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: the table does not understand the filter")
    assert err.count("\n") == 1

    for wrong in ([], ["words", "--by", "colour"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2


def test_importing_the_package_is_cheap(checkout: Path) -> None:
    heavy = "{'torch', 'lancedb', 'open_clip'}"
    code = f"import sys; from assets.search_table import search, embed, open_table; sys.exit(','.join({heavy} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True)


def test_embed_gives_the_vectors_that_search_compares(published: Path, tmp_path: Path) -> None:
    row = rows()[4]
    (tmp_path / "query.png").write_bytes(row["image"])
    vectors = embed(["a red heart", row["image"], tmp_path / "query.png", "a sailboat", Image.open(tmp_path / "query.png")])
    assert (vectors.dtype, vectors.shape) == (np.float32, (5, 16))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for own in vectors[[1, 2, 4]]:
        assert own @ np.array(row["vector"]) == pytest.approx(1, abs=1e-5)
    for text, own in (("a red heart", vectors[0]), ("a sailboat", vectors[3])):
        assert np.allclose(embed(text), own[None], atol=1e-5)
        hit = search(text, k=1)
        stored = next(np.array(each["vector"]) for each in rows() if each["id"] == hit["id"][0].as_py())
        assert 1 - own @ stored == pytest.approx(hit["_distance"][0].as_py(), abs=1e-5)


def test_embed_of_one_and_of_none(published: Path, tmp_path: Path) -> None:
    (tmp_path / "query.png").write_bytes(rows()[0]["image"])
    for one in ("a red heart", rows()[0]["image"], tmp_path / "query.png", Image.open(tmp_path / "query.png")):
        assert embed(one).shape == (1, 16)
    assert embed([]).shape == (0, 16)
    with pytest.raises(UserError, match=r"the query is empty"):
        embed(["a red heart", " "])
    with pytest.raises(UserError, match=r"given int"):
        embed([5])


def test_settings_are_parsed_once_and_again_when_they_change(published: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The parser takes longer than a search; a service searches often."""
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    parsed, real = [], params.read_yaml
    monkeypatch.setattr(params, "read_yaml", lambda path: parsed.append(path) or real(path))
    for _ in range(3):
        search("a red heart")
    assert len(parsed) == 1
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("refine_factor: 10", "refine_factor: 12"))
    search("a red heart")
    assert len(parsed) == 2
    Path("params.yaml").write_text(text.replace("refine_factor:", "refine_factory:"))
    with pytest.raises(UserError, match="refine_factory: no such setting"):
        search("a red heart")
    Path("params.yaml").unlink()
    with pytest.raises(UserError, match=r"no params.yaml in .*top folder"):
        search("a red heart")


def test_pictures_of_queries_are_known_by_their_pixels() -> None:
    red, blue = (QueryPictures([Image.new("RGB", (4, 4), color)]) for color in ("red", "blue"))
    assert red.digests() == QueryPictures([Image.new("RGB", (4, 4), "red")]).digests()
    assert len({each.digests()[0] for each in (red, blue, QueryPictures([Image.new("RGB", (2, 8), "red")]))}) == 3


def test_hits_are_an_arrow_table(published: Path) -> None:
    hits = search("a red heart")
    assert isinstance(hits, pa.Table)
    assert "vector" not in hits.column_names
