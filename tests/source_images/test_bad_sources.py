"""Sources that cannot be read as they are: what is wrong is named with file, row and column, and a broken row loses that row alone."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from assets import params
from assets.errors import UserError
from assets.source_images.stage import read_source
from tests.source_images.same_pictures import CREDIT, KINDS, pictures


@pytest.fixture(autouse=True)
def checkout_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("files/owl").mkdir(parents=True)
    for name in ("1.jpg", "2.JPG"):
        (Path("files/owl") / name).write_bytes(name.encode())


def read(source: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read_source(TypeAdapter(params.Source).validate_python(CREDIT | source))}


def table(name: str, content: str, **more: Any) -> dict[str, Any]:
    Path(name).write_text(content, encoding="utf-8")
    return {"kind": "table", "root": name, "pictures": "files", "columns": {"image": "path", "label": "label"}} | more


def test_a_row_that_is_broken_loses_that_row(caplog):
    """One line too long stopped a table of a million; or it went without a word."""
    rows = read(table("t.csv", "path,label\nowl/1.jpg,owl\nowl/2.JPG,owl,really\nowl/3.jpg,owl\n"))
    assert {each: row["image"] for each, row in rows.items()} == {"owl/1.jpg": b"1.jpg", "owl/3.jpg": b"", "t.csv#000000002": b""}
    assert "2 of 3 rows cannot be used: t.csv, line 3: expected 2 fields, found another number." in caplog.text
    assert "t.csv#000000003: no file 'owl/3.jpg' in files." in caplog.text
    rows = read(table("t.jsonl", '{"path": "owl/1.jpg"}\n\n[1]\n{"path": "owl\\\\2.JPG", "label": 3.0}\n'))
    assert {each: row["label"] for each, row in rows.items()} == {"owl/1.jpg": None, "owl/2.JPG": "3", "t.jsonl#000000002": None}
    assert "t.jsonl, line 3: not a JSON object." in caplog.text


def test_a_picture_that_is_not_in_base64_is_rejected_as_a_picture(caplog):
    rows = read(table("t.csv", 'path\nMTIz\n"data:image/png;base64,MTIz"\nowl/1.jpg!\n', pictures=None, columns={"image": "path"}))
    assert [row["image"] for row in rows.values()] == [b"123", b"123", b""]
    assert "column path holds no picture in base64, but 'owl/1.jpg!'" in caplog.text


@pytest.mark.parametrize("kind", ["jsonl", "hugging_face"])
def test_pictures_that_are_not_bytes_wait_until_their_turn(kind):
    """Base64 and Hugging Face's pairs, in another order than that of their ids, ended in a traceback."""
    source = KINDS[kind](Path("source"))
    order = list(read(source))
    lines = Path("source/table.jsonl")
    if kind == "jsonl":
        lines.write_text("".join(lines.read_text().splitlines(keepends=True)[::-1]))
    else:
        for old, new in (("data-00000", "later"), ("data-00001", "data-00000"), ("later", "data-00001")):
            Path(f"source/{old}-of-00002.arrow").rename(f"source/{new}-of-00002.arrow")
    rows = read(source)
    assert list(rows) == order
    assert [row["image"] for row in rows.values()] == [row["picture"] for row in pictures().values()]


def test_a_value_that_is_no_picture_is_rejected_as_one(caplog):
    """A number n was read as n zero bytes."""
    rows = read(a_parquet(image=[7, None], label=["a", "a"]))
    assert [row["image"] for row in rows.values()] == [b"", b""]
    assert "column image holds no picture, but 7" in caplog.text


def test_files_outside_the_folder_of_pictures_are_not_read():
    """dvc would not notice that they change."""
    Path("secret.jpg").write_bytes(b"secret")
    absolute = str(Path("files/owl/1.jpg").absolute())
    rows = read(table("t.csv", f"path,label\n../secret.jpg,a\n{Path('secret.jpg').absolute()},a\n{absolute},a\n./owl/../owl/2.JPG,b\n"))
    assert {row["image"] for row in rows.values()} == {b"", b"1.jpg", b"2.JPG"}
    assert {"owl/1.jpg", "owl/2.JPG"} < rows.keys()


def spoilt_tar(name: str, spoil: Callable[[bytes], bytes]) -> dict[str, Any]:
    Path(name).write_bytes(spoil((Path(KINDS["tar"](Path("shards"))["root"]) / "00000.tar").read_bytes()))
    shutil.rmtree("shards")
    return {"kind": "webdataset", "root": name, "columns": {}}


def a_parquet(**columns: Any) -> dict[str, Any]:
    pq.write_table(pa.table(columns), "t.parquet")
    return {"kind": "table", "root": "t.parquet", "pictures": None, "columns": {"image": "image", "label": "label"}}


CASES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no column": (lambda: table("t.csv", "path;class\nx;y\n"), r"columns\.label: t\.csv has no column 'label'\. It has path, class"),
    "no table": (lambda: table("t.txt", "path\n"), r"root: t\.txt has no table\. Allowed: \.csv, "),
    "missing": (lambda: table("t.csv", "") | {"root": "gone.csv"}, r"root: gone\.csv is missing"),
    "no header": (lambda: table("t.csv", ""), r"columns\.image: t\.csv has no column 'path'\. It has none"),
    "no rows": (lambda: table("t.csv", "path,label\n"), r"t\.csv holds no pictures"),
    "latin-1": (lambda: latin_1(), r"t\.csv is not CSV in UTF-8 or UTF-16: .*Save it as «CSV UTF-8», or convert it: iconv"),
    "other folder": (
        lambda: table("t.csv", "path,label\npics/owl/1.jpg,x\n"),
        r"none of its 1 rows can be used\. t\.csv#000000001: no file .* in files\. There is 'owl/1\.jpg': remove 'pics/' from the paths",
    ),
    "case": (lambda: table("t.csv", "path,label\nowl/2.jpg,x\n"), r"There is 'owl/2\.JPG': upper and lower case differ"),
    "no folder": (lambda: table("t.csv", "path,label\nx,y\n", pictures="gone"), r"pictures: gone is no folder"),
    "two labels": (
        lambda: table("t.csv", "path,label\nowl/1.jpg,owl\nowl/1.jpg,fox\n"),
        r"t\.csv#000000002: the picture owl/1\.jpg has two labels, owl and fox\. .* map a column id",
    ),
    "a split that is none": (
        lambda: table("t.csv", "path,label\nowl/1.jpg,holdout\n", columns={"image": "path", "split": "label"}),
        r"t\.csv: t\.csv#000000001 has the split 'holdout'\. Allowed, in any case: train, ",
    ),
    "two families": (
        lambda: table("t.csv", "path,label,f\nowl/1.jpg,x,a\nowl/2.JPG,x,b\n", columns={"image": "path", "label": "label", "family": "f"}),
        r"the class x is of two families: a \(owl/1\.jpg\) and b \(owl/2\.JPG\)",
    ),
    "several labels": (
        lambda: a_parquet(image=[b"x"], label=[["a", "b"]]),
        r"t\.parquet: t\.parquet#000000001, column label: given \['a', 'b'\]; allowed is one text or number",
    ),
    "bytes where paths are meant": (lambda: a_parquet(image=[b"\x89PNG"], label=["a"]) | {"pictures": "files"}, r"no file .* in files"),
    "paths in place of pictures": (
        lambda: table("t.csv", "path,label\n" + "owl/1.jpg,x\n" * 12, pictures=None),
        r"t\.csv: column path holds no encoded picture, .* but such as 'owl/1\.jpg'\. Where these are paths, use kind: table",
    ),
    "no Parquet": (lambda: table("t.parquet", "PAR"), r"t\.parquet is not a readable Parquet file"),
    "two kinds": (lambda: two_kinds(), r"root: both has tables of 2 kinds, csv and jsonl: name one file"),
    "unknown protocol": (
        lambda: table("t.csv", "") | {"root": "nowhere://x/t.csv"},
        r"nothing opens nowhere:// addresses\. Allowed: a path",
    ),
    "cut tar": (lambda: spoilt_tar("t.tar", lambda data: data[:3000]), r"t\.tar is cut or not a tar file: .*Fetch or write the shard anew"),
    "cut in a header": (lambda: spoilt_tar("t.tar", lambda data: data[: 512 * 2 + 100]), r"t\.tar is cut or not a tar file"),
    "no tar": (lambda: spoilt_tar("t.tar", lambda data: b"<html>" * 999), r"t\.tar is cut or not a tar file"),
    "packed tar": (lambda: spoilt_tar("t.tar.gz", lambda data: data), r"t\.tar\.gz holds packed shards, .* Unpack them to \.tar"),
    "no tars": (lambda: {"kind": "webdataset", "root": "files", "columns": {}}, r"files holds no \.tar file"),
    "no dataset": (
        lambda: {"kind": "hugging_face", "root": "files", "columns": {"image": "image"}},
        r"files holds no dataset\. Allowed: a folder",
    ),
    "dataset without a file": (lambda: half_a_dataset(), r"half lacks data-00001-of-00002\.arrow, which its state\.json names"),
    "a broken state": (lambda: half_a_dataset('{"_data_files": [1]}'), r"half/state\.json does not name the dataset's files"),
    "a database": (lambda: a_database(), r"root: db is a database; name one of its tables, such as db/mine\.lance"),
    "no Lance": (lambda: {"kind": "lance", "root": "files", "columns": {"image": "image"}}, r"root: files is no Lance table"),
}


def latin_1() -> dict[str, Any]:
    source = table("t.csv", "")
    Path("t.csv").write_bytes("path,label\nowl/1.jpg,Käuzchen\n".encode("latin-1"))
    return source


def two_kinds() -> dict[str, Any]:
    Path("both").mkdir()
    return table("both/a.csv", "") | table("both/b.jsonl", "") | {"root": "both"}


def half_a_dataset(state: str | None = None) -> dict[str, Any]:
    source = KINDS["hugging_face"](Path("half"))
    Path("half/data-00001-of-00002.arrow").unlink()
    if state is not None:
        Path("half/state.json").write_text(state)
    return source


def a_database() -> dict[str, Any]:
    return KINDS["lance_table"](Path("db")) | {"root": "db"}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_read_is_named_with_the_way_out(case):
    make, message = CASES[case]
    with pytest.raises(UserError, match=message):
        read(make())


def test_samples_of_a_shard_that_cannot_be_used_are_rejected_alone(caplog):
    with tarfile.open("t.tar", "w") as file:
        for name, content in {
            "a/1.jpg": b"one",
            "a/1.cls": b"7\n",
            "a/2.json": json.dumps({"label": "x"}).encode(),
            "3.PNG": b"three",
            "3.json": b"{broken",
            "4.seg.png": b"a mask",
            "4.webp": b"four",
            "4.npy": b"\x93\xff",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    rows = read({"kind": "webdataset", "root": "t.tar", "columns": {"label": "cls"}})
    assert {each: (row["image"], row["label"]) for each, row in rows.items()} == {
        "t/3": (b"", None),
        "t/4": (b"four", None),
        "t/a/1": (b"one", "7"),
        "t/a/2": (b"", None),
    }
    assert "t.tar: no picture of a/2" in caplog.text and "t.tar, 3.json: not JSON in UTF-8" in caplog.text


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lance_table"])  # Lance checks its own files
def test_files_with_changed_bytes_are_read_or_refused(kind):
    """Broken UTF-8 in a Parquet column, a broken state.json or schema ended in a traceback; a cut Arrow file killed the process."""
    source = KINDS[kind](Path("source"))
    files = [file for file in sorted(Path("source").rglob("*")) if file.is_file() and file.suffix != ".png"]
    drawn = random.Random(0)
    for _ in range(100):
        file = drawn.choice(files)
        right = file.read_bytes()
        wrong = bytearray(right)
        for _ in range(drawn.choice([1, 3, 20])):
            place = drawn.randrange(max(1, len(wrong)))
            wrong[place : place + drawn.choice([0, 1, 1, 500])] = drawn.randbytes(drawn.choice([0, 1, 8]))
        file.write_bytes(wrong)
        with contextlib.suppress(UserError):
            read(source)
        file.write_bytes(right)
