"""A folder of a user's pictures, with everything that such folders hold."""

import os
from pathlib import Path

import pytest

from assets import addresses
from assets.errors import UserError
from assets.source_images.folder_names import check_names
from assets.source_images.image_folder import read_image_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("red_panda/1.jpg", "red_panda/zoo/2.PNG", "tree-frog/a.webp", "tree-frog/b.Tiff", "lonely.gif", "é.bmp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    for name in ("red_panda/notes.txt", "red_panda/.hidden.jpg", ".git/x.jpg", "tree-frog/README", "tree-frog/c.psd"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def read(root: Path, *folders: str) -> dict[str, dict]:
    return {row["id"]: row for row in read_image_folder(root, "CC0-1.0", "me", folders or ["label"])}


def test_labels_are_the_first_folders(root, caplog):
    caplog.set_level("INFO")
    rows = list(read_image_folder(root, "CC0-1.0", "me", ["label"]))
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
    assert "ignored 5 file(s): 1 .psd, 1 .txt, 2 hidden or of the system, 1 without suffix" in caplog.text


@pytest.mark.parametrize("name", ["Captions.csv", "captions.tsv", "metadata.jsonl"])
def test_a_captions_file_of_another_name_is_not_passed_over_in_silence(name, root, caplog):
    """All captions were missing, and nothing said why."""
    (root / name).write_text("path,caption\nlonely.gif,alone\n")
    read(root)
    assert f"{root / name} is not read: captions are in captions.csv or captions.parquet" in caplog.text


def test_missing_empty_or_wrong_root(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitkeep").touch()
    (tmp_path / "file").touch()
    for name, problem in (("absent", "is missing"), ("empty", "holds no pictures"), ("file", "is not a folder")):
        with pytest.raises(
            UserError, match=rf"source_images\.sources, root: .*{name} {problem}\. Put pictures \(jpg, .*\) into .*/<label>/"
        ):
            read(tmp_path / name)


def test_a_link_to_a_folder_is_refused_and_a_root_that_is_one_is_read(root, tmp_path):
    """dvc does not see what changes behind it: pictures that came there changed nothing, «up to date»."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.jpg").write_bytes(b"x")
    (root / "red_panda" / "linked.jpg").symlink_to(elsewhere / "x.jpg")
    (root / ".hidden").symlink_to(elsewhere, target_is_directory=True)
    (tmp_path / "root").symlink_to(root, target_is_directory=True)
    assert len(read(tmp_path / "root")) == 7
    check_names(root)
    (root / "owl").symlink_to(elsewhere, target_is_directory=True)
    (root / "red_panda" / "self").symlink_to(root / "red_panda", target_is_directory=True)
    for refuses in (read, check_names):
        with pytest.raises(
            UserError, match=r"holds 2 link\(s\) to a folder: .*owl → .*elsewhere, .*self → .*red_panda\. dvc .* Copy or move"
        ):
            refuses(root)


def test_files_that_cannot_be_read_are_rows_without_bytes(root, monkeypatch, caplog):
    (root / "owl").mkdir()
    (root / "owl" / "broken_link.jpg").symlink_to(root / "nowhere.jpg")
    assert read(root)["owl/broken_link.jpg"]["image"] == b""
    assert "broken_link.jpg: cannot be read (No such file or directory)" in caplog.text
    monkeypatch.setattr(addresses, "MAX_FILE_BYTES", 3)
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


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def said(rows: dict[str, dict]) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {each: (row["given_split"], row["family"], row["label"]) for each, row in rows.items()}


def test_folders_of_splits_and_families(tmp_path, caplog):
    root = fill(tmp_path, "Train/birds/owl/1.jpg", "Train/birds/owl/deep/2.jpg", "TEST/cats/lynx/3.jpg", "Train/birds/4.jpg", "5.jpg")
    assert said(read(root, "split", "family", "label")) == {
        "5.jpg": (None, None, None),
        "TEST/cats/lynx/3.jpg": ("test", "cats", "lynx"),
        "Train/birds/4.jpg": (None, None, None),
        "Train/birds/owl/1.jpg": ("train", "birds", "owl"),
        "Train/birds/owl/deep/2.jpg": ("train", "birds", "owl"),
    }
    assert (
        "1 picture(s) have no label, since they lie in fewer folders than [split, family, label], such as Train/birds/4.jpg" in caplog.text
    )
    assert said(read(root, "family", "label"))["Train/birds/owl/1.jpg"] == (None, "Train", "birds")
    assert said(read(root, "split", "label"))["TEST/cats/lynx/3.jpg"] == ("test", None, "cats")


def test_folders_of_splits_are_recognised(tmp_path, caplog):
    """They were once taken for the classes, and the real classes were lost without a word."""
    caplog.set_level("INFO")
    root = fill(tmp_path, "train/owl/1.jpg", "val/owl/2.jpg", "test/fox/3.jpg", "holiday.jpg")
    (root / "nothing_in_it").mkdir()
    assert said(read(root)) == {
        "holiday.jpg": (None, None, None),
        "test/fox/3.jpg": ("test", None, "fox"),
        "train/owl/1.jpg": ("train", None, "owl"),
        "val/owl/2.jpg": ("validation", None, "owl"),
    }
    assert "the folders test, train, val are splits and the folders in them classes, so folders: [split, label] is used" in caplog.text


def test_without_a_folder_for_test_validation_is_tested_with(tmp_path, caplog):
    root = fill(tmp_path, "Training/owl/1.jpg", "Valid/owl/2.jpg")
    assert [split for split, *_ in said(read(root)).values()] == ["train", "test"]
    assert "there is no folder for test, so the pictures for validation are tested with" in caplog.text


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (["train/1.jpg", "test/owl/2.jpg"], True),  # a picture straight in a split
        (["train/owl/1.jpg"], True),  # one folder alone
        (["test/owl/1.jpg", "val/owl/2.jpg"], True),  # nothing to train on
        (["train/owl/1.jpg", "test/owl/2.jpg", "unlabeled/3.jpg"], True),  # a folder beside them
        (["train/1.jpg", "test/2.jpg", "bus/3.jpg"], False),  # vehicles
    ],
)
def test_folders_that_only_sound_like_splits_stay_classes(names, warned, tmp_path, caplog):
    rows = read(fill(tmp_path, *names))
    assert {row["label"] for row in rows.values()} == {name.partition("/")[0] for name in names}
    assert {row["given_split"] for row in rows.values()} == {None}
    assert ("set source_images.sources, folders: [split, label]" in caplog.text) is warned


def test_a_folder_that_is_no_split(tmp_path):
    with pytest.raises(
        UserError, match=r"folders: the first folders are to be splits, and holdout is none\. Allowed, in any case: train, "
    ):
        read(fill(tmp_path, "train/owl/1.jpg", "holdout/owl/2.jpg"), "split", "label")


def write_captions(root: Path, *rows: str) -> None:
    (root / "captions.csv").write_text("\n".join(["path,caption,family,split", *rows]), encoding="utf-8")


def test_the_captions_file_gives_families_and_splits(tmp_path):
    root = fill(tmp_path, "owl/1.jpg", "owl/2.jpg", "fox/3.jpg", "free.jpg")
    write_captions(root, "owl/1.jpg,an owl,birds,Training", "owl/1.jpg,at night,,", "fox/3.jpg,,,test", "free.jpg,a beach,places,test")
    rows = read(root)
    assert said(rows) == {
        "fox/3.jpg": ("test", None, "fox"),
        "free.jpg": (None, None, None),
        "owl/1.jpg": ("train", "birds", "owl"),
        "owl/2.jpg": (None, "birds", "owl"),  # a family is its class's
    }
    assert [rows[each]["captions"] for each in ("owl/1.jpg", "fox/3.jpg", "free.jpg")] == [["an owl", "at night"], [], ["a beach"]]


@pytest.mark.parametrize(
    ("rows", "folders", "message"),
    [
        (["a/owl/1.jpg,x,f,", "a/owl/2.jpg,x,g,"], ["label"], r"the class a is of two families: f \(a/owl/1\.jpg\) and g \(a/owl/2\.jpg\)"),
        (
            ["a/owl/1.jpg,x,b,"],
            ["family", "label"],
            r"the picture a/owl/1\.jpg is of the family a by its folder and b by the captions file",
        ),
        ([], ["family", "label"], r"the class owl is of two families: a \(a/owl/1\.jpg\) and b \(b/owl/3\.jpg\)"),
        (["a/owl/1.jpg,x,,train", "a/owl/1.jpg,y,,test"], ["label"], r"a/owl/1\.jpg has two splits, train and test"),
        (["a/owl/1.jpg,x,f,", "a/owl/1.jpg,y,g,"], ["label"], r"a/owl/1\.jpg has two families, f and g"),
        (["a/owl/1.jpg,x,,holdout"], ["label"], r"a/owl/1\.jpg has the split 'holdout'\. Allowed, in any case: train, "),
    ],
)
def test_contradictions_are_named(rows, folders, message, tmp_path):
    root = fill(tmp_path, "a/owl/1.jpg", "a/owl/2.jpg", "b/owl/3.jpg")
    write_captions(root, *rows)
    with pytest.raises(UserError, match=message):
        read(root, *folders)


def test_labels_and_families_have_one_spelling(tmp_path):
    """Two classes of one name: with seed 3 one was trained on and the other tested with."""
    root = fill(tmp_path, "caf\u00e9/1.jpg", "cafe\u0301/1.jpg", "tea/2.jpg")
    write_captions(root, "caf\u00e9/1.jpg,one,d\u00e9j\u00e0,", "cafe\u0301/1.jpg,other,de\u0301ja\u0300,")
    rows = read(root)
    assert {row["label"] for row in rows.values()} == {"caf\u00e9", "tea"}
    assert {row["family"] for row in rows.values()} == {"d\u00e9j\u00e0", None}
    assert {each: row["captions"] for each, row in rows.items() if row["captions"]} == {
        "caf\u00e9/1.jpg": ["one"],
        "cafe\u0301/1.jpg": ["other"],
    }, "the very name goes before another spelling of it"
