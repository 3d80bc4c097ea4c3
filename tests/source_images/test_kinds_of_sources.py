"""The same pictures give the same table, whatever kind of source they come from, and several sources stay apart in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import artifacts, params
from assets.curated_images.stage import make_curated_images
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA
from assets.pictures.table import read_batches, read_rows
from assets.source_images.stage import make_source_images
from assets.source_images.watched import note_addresses
from tests.settings import demo_settings
from tests.source_images.same_pictures import CREDIT, KINDS, folder, pictures

WRITTEN = Path(__file__).parent / "written"


@pytest.fixture(autouse=True)
def checkout_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(*sources: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that the stage writes."""
    settings = params.SourceImages.model_validate({"sources": [CREDIT | source for source in sources]})
    note_addresses(settings.sources)
    make_source_images(settings)
    return [row for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, 100) for row in batch.to_pylist()]


def curated() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    settings = demo_settings()["curated_images"] | {"test_fraction": 0.4}
    make_curated_images(params.CuratedImages.model_validate(settings))
    return read_rows(artifacts.CURATED_IMAGES).to_pylist(), pq.read_table(artifacts.REJECTED_IMAGES).to_pylist()


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "folder"])
def test_every_kind_of_source_gives_the_same_tables(kind, tmp_path):
    """A reader that loses or swaps a label, a caption, a split or a picture, or that does not give the broken one to be rejected."""
    expected = read(folder(tmp_path / "folder"))
    assert [row["image"] for row in expected] == [row["picture"] for row in pictures().values()]
    expected_kept, expected_rejected = curated()
    assert len(expected_kept) == 10 and len(expected_rejected) == 1
    source = KINDS[kind](tmp_path / "source")
    found = read(source)
    assert [row | {"source": ""} for row in found] == [row | {"source": ""} for row in expected]
    assert {row["source"] for row in found} == {source["kind"]}
    kept, rejected = curated()
    assert [row | {"source": ""} for row in kept] == [row | {"source": ""} for row in expected_kept]
    assert rejected == expected_rejected
    assert set(kept[0]) == set(CURATED_SCHEMA.names) - {"image"}


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "lance_table"])  # opens no memory://; see test_addresses
def test_a_source_at_an_address_gives_the_same_table(kind, tmp_path):
    """A reader that opens paths alone."""
    source = KINDS[kind](tmp_path / "source")
    expected = read(source)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "source"), "/bucket", recursive=True)
    try:
        there = {key: source[key].replace(str(tmp_path / "source"), "memory://bucket") for key in ("root", "pictures") if source.get(key)}
        assert read(source | there) == expected
    finally:
        memory.rm("/bucket", recursive=True)


def test_several_sources_stay_apart_in_one_table(tmp_path):
    """An owl of one source was an owl of the other, and two pictures had one id, of which one is lost."""
    sources = [
        KINDS["parquet"](tmp_path / "parquet") | {"name": "shop", "license": "MIT"},
        folder(tmp_path / "folder") | {"name": "mine"},
        KINDS["tar"](tmp_path / "tar") | {"name": "mine-too", "labels": "mine"},
    ]
    rows = read(*sources)
    assert [row["id"] for row in rows] == sorted(f"{name}/{each}" for name in ("mine", "mine-too", "shop") for each in pictures())
    assert {row["label"] for row in rows if row["source"] == "shop"} == {None, "shop/owl", "shop/café", "shop/red_panda"}
    assert {row["label"] for row in rows if row["source"] != "shop"} == {None, "mine/owl", "mine/café", "mine/red_panda"}
    assert {row["family"] for row in rows} == {None, "shop/birds", "mine/birds"}
    assert {row["class_name"] for row in rows} == {"", "owl", "café", "red panda"}
    assert {(row["source"], row["license"]) for row in rows} == {("shop", "MIT"), ("mine", "CC0-1.0"), ("mine-too", "CC0-1.0")}
    assert read(*sources[::-1]) == rows, "the order in params.yaml changes nothing"
    assert read(sources[0]) == [row for row in rows if row["source"] == "shop"], "nor does a source that goes"


@pytest.mark.parametrize(
    ("kind", "first"),
    [("parquet", "part-0.parquet#000000001"), ("tar", "00000/000000000"), ("lance_table", "mine.lance#000000001")],
)
def test_without_a_column_id_a_picture_is_called_after_its_place(kind, first, tmp_path):
    """Ids by position over all files: a file that comes later would rename every picture."""
    source = KINDS[kind](tmp_path / "source")
    rows = read(source | {"columns": {column: name for column, name in source["columns"].items() if column != "id"}})
    assert rows[0]["id"] == first and len({row["id"] for row in rows}) == 11
    by_picture = {row["picture"]: row["kind"] for row in pictures().values()}
    assert [row["label"] for row in rows] == [by_picture[row["image"]] for row in rows]


def test_what_the_libraries_themselves_wrote():
    """A layout that the imitations in same_pictures do not have. The files in `written` are by datasets 5.2 and webdataset 1.0."""
    expected = {f"picture {number}": ("owl", "fox")[number % 2] for number in range(5)}
    columns = {"image": "image", "label": "label", "captions": "caption", "split": "split"}
    rows = read({"kind": "hugging_face", "root": str(WRITTEN / "datasets"), "columns": columns})
    assert {row["captions"][0]: row["label"] for row in rows} == expected
    assert [row["id"].partition("/")[0] for row in rows] == [row["given_split"] for row in rows] == ["test"] * 2 + ["train"] * 3
    assert all(row["image"].startswith(b"\x89PNG") for row in rows)
    rows = read({"kind": "webdataset", "root": str(WRITTEN / "webdataset"), "columns": {"label": "cls", "captions": "txt"}})
    assert {row["captions"][0]: ("owl", "fox")[int(row["label"])] for row in rows} == expected
    assert [row["id"] for row in rows] == [f"{number // 3:05}/{number:09}" for number in range(5)]
    assert all(row["image"].startswith(b"\x89PNG") for row in rows)


def test_a_dataset_as_the_hub_lays_it_out_gives_its_splits(tmp_path):
    """The folder `data` was taken for the split of every picture, which is none."""
    source = KINDS["hugging_face"](tmp_path / "source")
    with pa.ipc.open_stream(tmp_path / "source/data-00000-of-00002.arrow") as stream:
        rows = stream.read_all()
    (tmp_path / "hub/data").mkdir(parents=True)
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        pq.write_table(rows.slice(2, 2) if name.startswith("train") else rows.slice(4, 1), tmp_path / "hub/data" / f"{name}.parquet")
    columns = {"image": "picture", "label": "kind", "split": "split"}
    rows = read(source | {"root": str(tmp_path / "hub"), "columns": columns})
    assert [row["id"].partition("-")[0] for row in rows] == ["data/test", "data/train", "data/train"]
    assert [(row["given_split"], row["label"]) for row in rows] == [("test", "café"), ("train", "café"), ("train", "café")]


def test_blobs_of_a_lance_table_are_read(tmp_path):
    """A scan of such a column gives places in a file, which were taken for pictures."""
    schema = pa.schema([pa.field("name", pa.string()), pa.field("picture", pa.large_binary(), metadata={"lance-encoding:blob": "true"})])
    rows = [{"name": name, "picture": row["picture"]} for name, row in pictures().items()]
    lance.write_dataset(pa.Table.from_pylist(rows, schema=schema), tmp_path / "blobs.lance")
    found = read({"kind": "lance", "root": str(tmp_path / "blobs.lance"), "columns": {"image": "picture", "id": "name"}})
    assert [row["image"] for row in found] == [row["picture"] for row in pictures().values()]
