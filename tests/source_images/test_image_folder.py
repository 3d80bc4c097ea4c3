"""A folder of a user's pictures, with everything that such folders hold."""

import os
from pathlib import Path

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
        "family": None,
        "given_split": None,
        "captions": [],
        "source": "image_folder",
        "license": "CC0-1.0",
        "attribution": "me",
    }
    assert "ignored 5 file(s): 1 .heic, 1 .txt, 2 hidden, 1 without suffix" in caplog.text


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
