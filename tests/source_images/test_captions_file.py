"""What people wrote about the pictures of a folder is found for the right picture, or the file is refused with its fault."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.errors import UserError
from assets.source_images.captions_file import read_captions

PICTURES = ["lonely.gif", "red_panda/1.jpg", "é.bmp"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def read(root: Path) -> dict[str, list[str]]:
    return {picture: written.captions for picture, written in read_captions(root, PICTURES).items()}


def write_csv(root: Path, *rows: tuple[str, ...], header: tuple[str, ...] = ("path", "caption")) -> None:
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_captions_csv(root):
    write_csv(
        root,
        ("red_panda/1.jpg", "a panda, asleep"),
        ("./red_panda/1.jpg", " curled up "),
        ("e\u0301.bmp", "x"),
        ("red_panda/1.jpg", "curled up"),
    )
    captions = read(root)
    assert captions["red_panda/1.jpg"] == ["a panda, asleep", "curled up"]
    assert captions["é.bmp"] == ["x"]  # the accent as its own character, as macOS writes it
    assert "lonely.gif" not in captions


def test_captions_csv_from_a_spreadsheet_with_empty_rows(root, caplog):
    (root / "captions.csv").write_bytes("\ufeffpath,caption,note\r\nlonely.gif,alone,x\r\nlonely.gif,  ,y\r\n".encode())
    assert read(root)["lonely.gif"] == ["alone"]
    assert "skipped 1 row(s) with an empty caption" in caplog.text


DIALECTS = {
    "as it should be": "path,caption\nlonely.gif,one; two\n",
    "byte order mark": "\ufeffpath,caption\nlonely.gif,one; two\n",
    "semicolons": 'path;caption\nlonely.gif;"one; two"\n',
    "a spreadsheet's note": 'sep=;\npath;caption\nlonely.gif;"one; two"\n',
    "tabs": "path\tcaption\nlonely.gif\tone; two\n",
    "bars": "path|caption\nlonely.gif|one; two\n",
    "CRLF": "path,caption\r\nlonely.gif,one; two\r\n",
    "CR": "path,caption\rlonely.gif,one; two\r",
    "upper case": "Caption, PATH \none; two,lonely.gif\n",
    "quotes": '"path","caption"\n"lonely.gif","one; two"\n',
    "a column more, and its commas": "path,caption,,\nlonely.gif,one; two,,\n,,,\n",
    "empty lines": "path,caption\n\nlonely.gif,one; two\n\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_of_a_captions_file_is_read(dialect, encoding, root):
    """What spreadsheets save was refused as «lacks the column(s) path», or gave captions with the mark or the quotes in them."""
    (root / "captions.csv").write_bytes(DIALECTS[dialect].encode(encoding))
    assert read(root) == {"lonely.gif": ["one; two"]}


WRITTEN = ("./red_panda/1.jpg", "red_panda\\1.jpg", ".\\red_panda\\1.jpg", "{root}/red_panda/1.jpg", "x/../red_panda/1.jpg")


@pytest.mark.parametrize("written", WRITTEN)
def test_a_path_is_found_however_it_is_written(written, root):
    """A file that another system or a script wrote was refused as naming absent pictures."""
    write_csv(root, (written.format(root=root), "asleep"))
    assert read(root) == {"red_panda/1.jpg": ["asleep"]}


@pytest.mark.parametrize(
    ("written", "way_out"),
    [
        ("C:\\Users\\me\\pictures\\red_panda\\1.jpg", r"There is 'red_panda/1\.jpg': remove 'C:/Users/me/pictures/' from the paths"),
        ("/home/me/red_panda/1.jpg", r"There is 'red_panda/1\.jpg': remove '/home/me/' from the paths"),
        ("Red_Panda/1.JPG", r"There is 'red_panda/1\.jpg': upper and lower case differ"),
        ("red_panda/1.png", r"There is 'red_panda/1\.jpg': the suffixes differ"),
    ],
)
def test_a_path_that_means_another_is_refused_with_the_way_out(written, way_out, root):
    """Guessing would give a caption to the wrong one of two pictures."""
    write_csv(root, (written, "asleep"))
    with pytest.raises(UserError, match=way_out):
        read(root)


def test_columns_of_a_parquet_file_may_differ_in_case(root):
    pq.write_table(pa.table({"Path": ["lonely.gif"], "CAPTION": ["alone"]}), root / "captions.parquet")
    assert read(root) == {"lonely.gif": ["alone"]}


def test_captions_parquet(root):
    table = pa.table({"caption": ["alone", None, "two"], "path": ["lonely.gif", "lonely.gif", "lonely.gif"]})
    pq.write_table(table, root / "captions.parquet")
    assert read(root)["lonely.gif"] == ["alone", "two"]


def test_captions_of_absent_pictures(root):
    write_csv(root, *((f"gone/{n}.jpg", "x") for n in range(5)), ("gone/0.jpg", "again"), ("lonely.gif", "here"))
    with pytest.raises(
        UserError, match=r"captions\.csv names 5 picture\(s\) that are not in .*'gone/0\.jpg', 'gone/1\.jpg', 'gone/2\.jpg', …"
    ):
        read(root)


def test_captions_files_of_the_wrong_form(root):
    def message(content: bytes, name: str = "captions.csv") -> str:
        (root / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            read(root)
        (root / name).unlink()
        return str(caught.value)

    assert "lacks the column(s) path; it has file, caption" in message(b"file,caption\nx,y\n")
    assert "lacks the column(s) path, caption; it has none" in message(b"")
    assert "line 3: expected 2 fields" in message(b"path,caption\nlonely.gif,ok\nlonely.gif,a panda, asleep\n")
    assert "line 2: expected 2 fields" in message(b"path,caption\nlonely.gif\n")
    assert "Save it as «CSV UTF-8»" in message("path,caption\nlonely.gif,Gr\u00fc\u00dfe\n".encode("latin-1"))
    assert "is not CSV in UTF-8" in message(b'path,caption\nlonely.gif,"never closed\n')
    assert "is not a readable Parquet file" in message(b"no parquet", "captions.parquet")
    pq.write_table(pa.table({"path": ["lonely.gif"], "caption": [1]}), root / "captions.parquet")
    assert "column caption is of type int64" in message((root / "captions.parquet").read_bytes(), "captions.parquet")


def test_two_captions_files(root):
    write_csv(root)
    pq.write_table(pa.table({"path": ["lonely.gif"], "caption": ["x"]}), root / "captions.parquet")
    with pytest.raises(UserError, match=r"has both captions\.csv and captions\.parquet"):
        read(root)
