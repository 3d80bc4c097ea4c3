"""`make demo SOURCE=` with anything but a folder of pictures: which kind of source it is, and which of its columns mean what."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.errors import UserError
from assets.source_images.recognised import recognised, usual_columns
from tests.source_images.same_pictures import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_recognised_by_what_lies_there(kind, tmp_path, monkeypatch):
    """A table or a folder of shards was read as a folder without pictures."""
    monkeypatch.chdir(tmp_path)
    source: dict[str, Any] = KINDS[kind](tmp_path / "source")
    found = recognised(source["root"])
    assert (found["kind"], found["root"]) == (source["kind"], source["root"])
    assert {"license", "attribution"} < found.keys()


def test_columns_are_known_by_what_people_call_them():
    assert usual_columns(["Text", "IMAGE", "Label", "caption", "url"]) == {"image": "IMAGE", "label": "Label", "captions": "caption"}
    assert usual_columns(["url"]) == {}


def test_a_table_of_paths_finds_its_pictures_beside_it(tmp_path):
    """Paths were decoded as base64, and every picture was rejected."""
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "1.jpg").write_bytes(b"x")
    (tmp_path / "paths.csv").write_text("file_name;class\nowl\\1.jpg;owl\n")
    (tmp_path / "bytes.csv").write_text("image,class\neHh4,owl\n")
    found = recognised(str(tmp_path / "paths.csv"))
    assert (found["pictures"], found["columns"]) == (str(tmp_path), {"image": "file_name", "label": "class"})
    assert recognised(str(tmp_path / "bytes.csv"))["pictures"] is None
    (tmp_path / "inside.csv").write_text("path\n1.jpg\n")
    assert recognised(str(tmp_path / "inside.csv"))["pictures"] == str(tmp_path / "owl")
    (tmp_path / "elsewhere.csv").write_text("path\nfox/1.jpg\n")
    with pytest.raises(UserError, match=r"such as 'fox/1\.jpg', which begin neither in .* nor in a folder there\. Put the table beside"):
        recognised(str(tmp_path / "elsewhere.csv"))


def test_a_dataset_in_parquet_keeps_the_names_of_its_labels(tmp_path):
    """Its labels are numbers in Parquet, and the classes were called 0 and 1."""
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())], metadata={"huggingface": '{"info": {"features": {}}}'})
    pq.write_table(pa.Table.from_pylist([{"image": b"x", "label": 0}], schema=schema), tmp_path / "a.parquet")
    assert recognised(str(tmp_path / "a.parquet"))["kind"] == "hugging_face"


def test_what_is_no_source_is_refused_with_what_is_allowed(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "t.csv").write_text("url,label\nx,y\n")
    (tmp_path / "t.parquet").write_text("no Parquet")
    for name, message in (
        ("notes.txt", r"is not a folder, and no table or shard: \.csv, .*\.tar"),
        ("t.csv", r"has the columns url, label, and none of them is called as columns of pictures usually are: image, "),
        ("t.parquet", "is not a readable Parquet file"),
    ):
        with pytest.raises(UserError, match=message):
            recognised(str(tmp_path / name))
