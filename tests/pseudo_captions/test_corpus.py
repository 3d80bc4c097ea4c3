"""Which files of captions are refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.errors import UserError
from assets.pseudo_captions.corpus import read_corpus


def test_corpus_files(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    pq.write_table(pa.table({"caption": ["three", None]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": ["four"]}), tmp_path / "c.parquet")
    assert read_corpus([str(tmp_path / "a.txt"), str(tmp_path / "b.parquet")]) == ["one", "two", "three"]
    with pytest.raises(UserError, match="no column 'caption', only text"):
        read_corpus([str(tmp_path / "c.parquet")])
    with pytest.raises(UserError, match="not a file"):
        read_corpus(["absent.txt"])
    (tmp_path / "d.csv").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="neither"):
        read_corpus([str(tmp_path / "d.csv")])


def test_a_corpus_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"caption": [1, 2]}), tmp_path / "numbers.parquet")
    for name, message in (("latin.txt", "not UTF-8"), ("broken.parquet", "not a readable Parquet"), ("numbers.parquet", "type int64")):
        with pytest.raises(UserError, match=f"{name}.*{message}"):
            read_corpus([str(tmp_path / name)])
