"""Sources as other programs leave them: what is right in them is read, what is ambiguous is named, and nothing takes another's words."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import tarfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from assets import params
from assets.addresses import read_file
from assets.errors import UserError
from assets.source_images.captions_file import read_captions
from assets.source_images.folder_levels import place_of
from assets.source_images.recognised import recognised
from assets.source_images.stage import read_source
from tests.settings import demo_settings
from tests.source_images.same_pictures import CREDIT


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("files").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (Path("files") / name).write_bytes(name.encode())
    return tmp_path


def read(source: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read_source(TypeAdapter(params.Source).validate_python(CREDIT | source))}


def table(name: str, content: str | bytes, columns: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return {"kind": "table", "root": name, "pictures": "files", "columns": columns or {"image": "path", "label": "label"}} | more


def tar(name: str, *members: tuple[str, bytes] | tarfile.TarInfo) -> dict[str, Any]:
    with tarfile.open(name, "w", format=tarfile.GNU_FORMAT) as shard:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                shard.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            shard.addfile(info, io.BytesIO(member[1]))
    return {"kind": "webdataset", "root": name, "columns": {"captions": "txt"}}


def linked(name: str, to: str) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.LNKTYPE, to
    return link


def test_a_key_that_comes_twice_in_a_shard_loses_its_own_picture_alone(caplog):
    """The first picture got the second one's text."""
    rows = read(tar("s.tar", ("1.jpg", b"a"), ("1.txt", b"one"), ("2.jpg", b"b"), ("2.txt", b"two"), ("1.jpg", b"c"), ("1.txt", b"three")))
    assert {each: (row["image"], row["captions"]) for each, row in rows.items()} == {"s/1": (b"", []), "s/2": (b"b", ["two"])}
    assert "s.tar holds 1.jpg twice" in caplog.text or "s.tar holds 1.txt twice" in caplog.text


def test_shards_joined_by_cat_are_no_shard():
    """All but the first were lost without a word."""
    tar("a.tar", ("1.jpg", b"a"))
    tar("b.tar", ("2.jpg", b"b"))
    Path("c.tar").write_bytes(Path("a.tar").read_bytes() + Path("b.tar").read_bytes())
    with pytest.raises(UserError, match=r"c\.tar is cut or not a tar file: .*another shard follows its end"):
        read({"kind": "webdataset", "root": "c.tar", "columns": {}})


def test_hard_links_in_a_shard_are_what_they_lead_to():
    """GNU tar writes equal files of a de-duplicated disk so: pictures vanished, texts were missing."""
    rows = read(tar("s.tar", ("1.jpg", b"a"), ("1.txt", b"one"), ("2.jpg", b"b"), linked("2.txt", "1.txt"), linked("3.jpg", "1.jpg")))
    assert {each: (row["image"], row["captions"]) for each, row in rows.items()} == {
        "s/1": (b"a", ["one"]),
        "s/2": (b"b", ["one"]),
        "s/3": (b"a", []),
    }


def test_names_and_texts_that_are_no_unicode():
    """A name in Latin-1, half an emoji: the run ended in a traceback."""
    with tarfile.open("s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as shard:
        info = tarfile.TarInfo("café/1.jpg")
        info.size = 1
        shard.addfile(info, io.BytesIO(b"a"))
    assert list(read({"kind": "webdataset", "root": "s.tar", "columns": {}})) == ["s/caf\\xe9/1"]
    lines = '{"path": "1.jpg", "label": "a cat \\ud83d"}\n{"path": "2.jpg", "label": "\\ud83d\\udc08"}\n'
    assert [row["label"] for row in read(table("t.jsonl", lines)).values()] == ["a cat �", "🐈"]


def test_json_that_is_nested_too_deep(caplog):
    deep = "[" * 100_000
    rows = read(table("t.jsonl", f'{{"path": "1.jpg", "label": "owl"}}\n{deep}\n'))
    assert rows["1.jpg"]["label"] == "owl" and "t.jsonl, line 2: not a JSON object." in caplog.text


@pytest.mark.parametrize(
    ("name", "content"), [("t.csv.gz", b"path,label\n1.jpg,owl\n" * 50), ("t.ndjson.gz", b'{"path": "1.jpg", "label": "owl"}\n' * 50)]
)
def test_a_packed_table_that_is_cut(name, content):
    packed = gzip.compress(content)
    assert read(table(name, packed))
    with pytest.raises(UserError, match=rf"{name} is not"):
        read(table(name, packed[: len(packed) // 2]))


def test_the_rows_of_a_picture_share_licence_and_group_and_may_not_contradict():
    """The first row's were taken: a picture was published under a licence that another row denied it."""
    columns = {"image": "path", "license": "l", "attribution": "a", "group": "g"}
    rows = read(table("t.csv", "path,l,a,g\n1.jpg,,Ann,\n1.jpg,CC-BY-4.0,Bob,birds\n2.jpg,,,\n", columns))
    assert [(row["license"], row["attribution"], row["group"]) for row in rows.values()] == [
        ("CC-BY-4.0", "Ann; Bob", "birds"),
        (CREDIT["license"], CREDIT["attribution"], None),
    ]
    with pytest.raises(UserError, match=r"the picture 1\.jpg has two licences, CC0-1\.0 and all rights reserved"):
        read(table("t.csv", "path,l,a,g\n1.jpg,CC0-1.0,,\n1.jpg,all rights reserved,,\n", columns))


def test_a_column_that_is_there_twice():
    """The last was read and the first was lost."""
    with pytest.raises(UserError, match=r"columns\.label: t\.csv has the column 'label' more than once"):
        read(table("t.csv", "path,label,label\n1.jpg,a,b\n"))
    Path("files/captions.csv").write_text("path,caption,caption\n1.jpg,one,two\n")
    with pytest.raises(UserError, match=r"captions\.csv has the column caption more than once"):
        read_captions("files", ["1.jpg"])


def test_a_quotation_mark_that_opens_a_field_by_mistake_is_named_with_its_line():
    """It swallowed the rows up to the next one, without a word."""
    with pytest.raises(UserError, match=r"line 2: a quotation mark opens a field there and is not closed before others begin"):
        read(table("t.tsv", 'path\tlabel\n1.jpg\t"Hope is a thing\n2.jpg\tshe was called"\n'))
    with pytest.raises(UserError, match=r"line 3: .*Write a quotation mark inside a field twice"):
        read(table("t.csv", 'path,label\n2.jpg,x\n1.jpg,"he said "hi" to me"\n'))
    rows = read(table("t.csv", 'path,label\n1.jpg,"two\nlines"\n'))
    assert rows["1.jpg"]["label"] == "two\nlines"


@pytest.mark.parametrize(
    "content",
    ["\n\npath,label\n1.jpg,owl\n", '"path", "label"\n"1.jpg", "owl"\n', "path\t,label\t\n1.jpg,owl\n", "path,label\n1.jpg,owl\0\n"],
)
def test_headers_and_rows_as_people_write_them(content):
    assert read(table("t.csv", content))["1.jpg"]["label"].rstrip("\0") == "owl"


def test_accents_in_both_spellings_are_two_files():
    """Both rows were taken for one picture's, and the other was lost."""
    names = ("\u00e9.jpg", "e\u0301.jpg")
    for name in names:
        (Path("files") / name).write_bytes(name.encode())
    rows = read(table("t.csv", f"path,label\n{names[0]},a\n{names[1]},b\n"))
    assert {row["image"].decode(): row["label"] for row in rows.values()} == dict(zip(names, "ab", strict=True))


def test_blanks_around_a_folders_name_are_not_of_the_label():
    assert place_of("cat /1.jpg", ["label"]).label == "cat"


def test_values_as_databases_export_them():
    encoded = base64.encodebytes(bytes(range(256))).decode()
    safe = base64.urlsafe_b64encode(bytes(range(256))).decode()
    pq.write_table(pa.table({"image": [encoded, safe], "label": [Decimal(3), Decimal("2.5")]}), "t.parquet")
    rows = read({"kind": "table", "root": "t.parquet", "pictures": None, "columns": {"image": "image", "label": "label"}})
    assert [(row["image"], row["label"]) for row in rows.values()] == [(bytes(range(256)), "3"), (bytes(range(256)), "2.5")]


def test_an_empty_part_has_no_say_and_sparse_keys_are_columns(caplog):
    Path("parts").mkdir()
    for name, content in (("0.csv", "path,label\n1.jpg,owl\n"), ("1.csv", ""), ("2.csv", "path,label,more\n2.jpg,fox,x\n")):
        (Path("parts") / name).write_text(content)
    source = {"kind": "table", "root": "parts", "pictures": "files", "columns": {"image": "path", "label": "label"}}
    assert [row["label"] for row in read(source).values()] == ["owl", "fox"]
    Path("sparse").mkdir()
    Path("sparse/0.jsonl").write_text('{"path": "1.jpg"}\n')
    Path("sparse/1.jsonl").write_text('{"path": "2.jpg", "label": "fox"}\n')
    assert [row["label"] for row in read(source | {"root": "sparse"}).values()] == [None, "fox"]


def _dataset(folder: str, names: list[str], labels: list[int]) -> None:
    """As save_to_disk writes one split."""
    Path(folder).mkdir(parents=True)
    about = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())], metadata={"huggingface": json.dumps(about)})
    with pa.OSFile(f"{folder}/data.arrow", "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        if labels:
            writer.write_batch(pa.record_batch([[b"x"] * len(labels), labels], schema=schema))
    Path(f"{folder}/state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))


def test_each_split_of_a_dataset_has_its_own_numbers_of_classes_and_may_be_empty():
    """A class that one split lacks shifted the numbers: every cat became an ant."""
    _dataset("ds/test", ["ant"], [])
    _dataset("ds/train", ["cat", "dog"], [0, 1])
    _dataset("ds/validation", ["ant", "cat"], [1])
    rows = read({"kind": "hugging_face", "root": "ds", "columns": {"image": "image", "label": "label"}})
    assert [row["label"] for row in rows.values()] == ["cat", "dog", "cat"]


def test_a_lance_table_with_a_file_that_is_cut(tmp_path):
    import lance

    lance.write_dataset(pa.table({"image": [b"x"] * 50, "label": ["a"] * 50}), "t.lance")
    file = next(Path("t.lance/data").iterdir())
    file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(UserError, match=r"t\.lance cannot be read as a Lance table: .*Write it anew, or name another"):
        read({"kind": "lance", "root": "t.lance", "columns": {"image": "image", "label": "label"}})


def test_a_captions_file_of_pandas_or_polars():
    words = pa.array(["a", "b"]).dictionary_encode()
    pq.write_table(pa.table({"path": ["1.jpg", "2.jpg"], "caption": words, "split": pa.nulls(2)}), "files/captions.parquet")
    assert [each.captions for each in read_captions("files", ["1.jpg", "2.jpg"]).values()] == [["a"], ["b"]]


@pytest.mark.parametrize("kind", ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX"])
def test_folders_that_systems_make_are_no_classes(kind):
    """Thumbnails and deleted pictures were trained on."""
    for name in ("cat/1.jpg", f"{kind}/2.jpg", f"cat/{kind}/1.jpg/THUMB.jpg"):
        (Path("p") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("p") / name).write_bytes(b"x")
    assert list(read({"kind": "image_folder", "root": "p", "folders": ["label"]})) == ["cat/1.jpg"]


def test_pipes_and_links_to_themselves_do_no_harm(caplog):
    """A pipe with a picture's name was waited for without end."""
    Path("p/cat").mkdir(parents=True)
    Path("p/cat/1.jpg").write_bytes(b"x")
    Path("p/cat/loop.jpg").symlink_to("loop.jpg")
    os.mkfifo("p/pipe")
    Path("p/cat/pipe.jpg").symlink_to(Path("p/pipe").absolute())
    rows = read({"kind": "image_folder", "root": "p", "folders": ["label"]})
    assert {each: row["image"] for each, row in rows.items()} == {"cat/1.jpg": b"x", "cat/loop.jpg": b"", "cat/pipe.jpg": b""}
    assert "is no file but a pipe or a device" in caplog.text
    assert read_file("p/cat/1.jpg") == b"x"


@pytest.mark.parametrize("first", [",owl\n", "gone.jpg,owl\n", ""])
def test_a_table_is_recognised_by_more_than_its_first_row(first, place):
    table("t.csv", f"path,label\n{first}{place}/files/2.jpg,fox\n")
    assert recognised("t.csv")["pictures"] == "."  # in which absolute paths are found too


def test_a_folder_called_like_a_table_is_recognised_as_one():
    Path("shop.parquet").mkdir()
    pq.write_table(pa.table({"image": [b"x"], "label": ["a"]}), "shop.parquet/part-0.parquet")
    assert recognised("shop.parquet")["kind"] == "table"


@pytest.mark.parametrize(
    ("labels", "allowed"),
    [({"a": "zz", "b": None}, "'b'"), ({"a": "b", "b": "c", "c": None}, "'c'")],
)
def test_labels_name_a_source_with_labels_of_its_own(labels, allowed):
    """A name that was written wrongly made two classes of one, perhaps on both sides of the test."""
    settings = demo_settings()
    settings["source_images"]["sources"] = [
        {"kind": "image_folder", "root": "p", "folders": ["label"], "name": name, "labels": of} | CREDIT for name, of in labels.items()
    ]
    with pytest.raises(UserError, match=rf"sources\[0\]\.labels: given '\w+'; it names a source whose labels are its own: {allowed}"):
        params.checked_params(settings, "these")


def test_utf_16_without_its_mark_whatever_script_follows():
    content = "path,label\r\n1.jpg,白いふくろうの絵がここにあります、とても長い名前です\r\n"
    assert read(table("t.csv", content.encode("utf-16-le")))["1.jpg"]["label"].startswith("白い")
