"""A folder of a user's pictures, with everything that such folders hold."""

import csv
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.errors import UserError
from assets.source_images import image_folder
from assets.source_images.image_folder import read_image_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("red_panda/1.jpg", "red_panda/zoo/2.PNG", "tree-frog/a.webp", "tree-frog/b.Tiff", "lonely.gif", "é.bmp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    for name in ("red_panda/notes.txt", "red_panda/.hidden.jpg", ".git/x.jpg", "tree-frog/README", "tree-frog/c.heic"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def read(root: Path) -> dict[str, dict]:
    return {row["id"]: row for row in read_image_folder(root, "CC0-1.0", "me")}


def write_csv(root: Path, *rows: tuple[str, ...], header: tuple[str, ...] = ("path", "caption")) -> None:
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_labels_are_the_first_folders(root, caplog):
    caplog.set_level("INFO")
    rows = list(read_image_folder(root, "CC0-1.0", "me"))
    assert [(row["id"], row["label"], row["class_name"]) for row in rows] == [
        ("lonely.gif", None, ""),
        ("red_panda/1.jpg", "red_panda", "red panda"),
        ("red_panda/zoo/2.PNG", "red_panda", "red panda"),
        ("tree-frog/a.webp", "tree-frog", "tree frog"),
        ("tree-frog/b.Tiff", "tree-frog", "tree frog"),
        ("é.bmp", None, ""),
    ]
    assert rows[1] == {
        "id": "red_panda/1.jpg",
        "image": b"bytes of red_panda/1.jpg",
        "label": "red_panda",
        "class_name": "red panda",
        "group": None,
        "captions": [],
        "source": "image_folder",
        "license": "CC0-1.0",
        "attribution": "me",
    }
    assert "ignored 5 file(s): 1 .heic, 1 .txt, 2 hidden, 1 without suffix" in caplog.text


def test_captions_csv(root):
    write_csv(
        root,
        ("red_panda/1.jpg", "a panda, asleep"),
        ("./red_panda/1.jpg", " curled up "),
        ("e\u0301.bmp", "x"),
        ("red_panda/1.jpg", "curled up"),
    )
    rows = read(root)
    assert rows["red_panda/1.jpg"]["captions"] == ["a panda, asleep", "curled up"]
    assert rows["é.bmp"]["captions"] == ["x"]  # the accent as its own character, as macOS writes it
    assert rows["lonely.gif"]["captions"] == []


def test_captions_csv_from_a_spreadsheet_with_empty_rows(root, caplog):
    (root / "captions.csv").write_bytes("\ufeffpath,caption,note\r\nlonely.gif,alone,x\r\nlonely.gif,  ,y\r\n".encode())
    assert read(root)["lonely.gif"]["captions"] == ["alone"]
    assert "skipped 1 row(s) with an empty caption" in caplog.text


def test_captions_parquet(root):
    table = pa.table({"caption": ["alone", None, "two"], "path": ["lonely.gif", "lonely.gif", "lonely.gif"]})
    pq.write_table(table, root / "captions.parquet")
    assert read(root)["lonely.gif"]["captions"] == ["alone", "two"]


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
    assert "is not CSV in UTF-8" in message("path,caption\nlonely.gif,Gr\u00fc\u00dfe\n".encode("latin-1"))
    assert "is not CSV in UTF-8" in message(b'path,caption\nlonely.gif,"never closed\n')
    assert "is not a readable Parquet file" in message(b"no parquet", "captions.parquet")
    pq.write_table(pa.table({"path": ["lonely.gif"], "caption": [1]}), root / "captions.parquet")
    assert "column caption is of type int64" in message((root / "captions.parquet").read_bytes(), "captions.parquet")


def test_two_captions_files(root):
    write_csv(root)
    pq.write_table(pa.table({"path": ["lonely.gif"], "caption": ["x"]}), root / "captions.parquet")
    with pytest.raises(UserError, match=r"has both captions\.csv and captions\.parquet"):
        read(root)


def test_missing_empty_or_wrong_root(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitkeep").touch()
    (tmp_path / "file").touch()
    for name, problem in (("absent", "is missing"), ("empty", "holds no pictures"), ("file", "is not a folder")):
        with pytest.raises(
            UserError, match=rf"source_images\.sources\[0\]\.root: .*{name} {problem}\. Put pictures \(jpg, .*\) into .*/<label>/"
        ):
            read(tmp_path / name)


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.jpg").write_bytes(b"x")
    (root / "owl").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(root, target_is_directory=True)
    (root / "red_panda" / "self").symlink_to(root / "red_panda", target_is_directory=True)
    rows = read(root)
    assert rows["owl/x.jpg"]["label"] == "owl"
    assert len(rows) == 7


def test_files_that_cannot_be_read_are_rows_without_bytes(root, monkeypatch, caplog):
    (root / "owl").mkdir()
    (root / "owl" / "broken_link.jpg").symlink_to(root / "nowhere.jpg")
    assert read(root)["owl/broken_link.jpg"]["image"] == b""
    assert "broken_link.jpg: cannot be read (No such file or directory)" in caplog.text
    monkeypatch.setattr(image_folder, "MAX_FILE_BYTES", 3)
    assert read(root)["lonely.gif"]["image"] == b""


def test_pipes_and_folders_named_like_pictures(root):
    os.mkfifo(root / "pipe.jpg")
    (root / "album.jpg").mkdir()
    (root / "album.jpg" / "1.jpg").write_bytes(b"1")
    rows = read(root)
    assert "pipe.jpg" not in rows
    assert rows["album.jpg/1.jpg"]["label"] == "album.jpg"


@pytest.mark.skipif(os.name != "posix", reason="other systems do not allow such names")
def test_file_names_that_are_not_utf8(root):
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system does not allow such names")
    assert read(root)["caf\\xe9.jpg"]["image"] == b"x"
