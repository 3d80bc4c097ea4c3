"""Picture tables on disk: what is written is read back, in order, however it is cut into row groups and shards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets import artifacts
from assets.errors import UserError
from assets.pictures import table as tables
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA, SPLITS
from assets.pictures.split import Split
from assets.pictures.table import (
    Group,
    groups_of,
    read_batches,
    read_images,
    read_images_of,
    read_rows,
    read_schema,
    row_count,
    shards,
    writing_batches,
    writing_rows,
)
from tests.pictures.pictures import png

OF_SPLIT = {"train": 11, "validation": 2, "test": 6, "library": 1}


def rows() -> list[dict[str, Any]]:
    """Twenty rows in the order of a curated table. Each picture is of one grey level, its row's number."""
    shared = {
        "group": None,
        "family": None,
        "given_split": None,
        "source": "image_folder",
        "license": "CC0-1.0",
        "attribution": "me",
        "width": 2,
        "height": 2,
    }
    found: list[dict[str, Any]] = []
    for split in SPLITS:
        for number in range(OF_SPLIT[split]):
            label = None if split == "library" else f"class {number % 3}"
            name = f"{split}/{number:02}"
            image = png((len(found),) * 3, (2, 2))
            own = {"id": name, "image": image, "label": label, "class_name": label or "", "captions": [name] * (number % 3)}
            found.append(shared | own | {"split": split, "sha256": hashlib.sha256(image).hexdigest()})
    return found


def write(path: Path, given: list[dict[str, Any]], schema: pa.Schema = CURATED_SCHEMA) -> Path:
    with writing_rows(path, schema) as add:
        for row in given:
            add(row)
    return path


def groups_by_shard(path: Path) -> list[list[int]]:
    """The numbers of rows of every row group, shard by shard."""
    metadata = [pq.read_metadata(shard) for shard in shards(path)]
    return [[each.row_group(number).num_rows for number in range(each.num_row_groups)] for each in metadata]


@pytest.fixture(params=[(512, 16), (4, 2), (4, 1), (1, 3), (20, 1)], ids=lambda cut: f"groups of {cut[0]}, shards of {cut[1]}")
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same rows in one shard, and in many whose ends fall inside splits."""
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", request.param[0])
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", request.param[1])
    return write(tmp_path / "images", rows())


def test_every_row_comes_back_in_order(table):
    without_pictures = [{name: value for name, value in row.items() if name != "image"} for row in rows()]
    assert read_rows(table).to_pylist() == without_pictures
    assert read_rows(table).schema.names == [name for name in CURATED_SCHEMA.names if name != "image"]
    assert read_schema(table) == CURATED_SCHEMA
    batches = list(read_batches(table, CURATED_SCHEMA.names, 3))
    assert max(batch.num_rows for batch in batches) <= 3
    assert [row for batch in batches for row in batch.to_pylist()] == rows()
    assert row_count(table) == len(rows())


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_read_alone_wherever_groups_and_shards_end(table, split):
    own = [row for row in rows() if row["split"] == split]
    assert row_count(table, split) == len(own)
    assert read_rows(table, split)["id"].to_pylist() == [row["id"] for row in own]
    assert list(read_images(table, split)) == [row["image"] for row in own]


def test_columns_come_as_asked_for(table):
    found = read_rows(table, "test", ["label", "id"])  # the split is not among them
    assert found.schema.names == ["label", "id"]
    assert found.to_pylist() == [{"label": row["label"], "id": row["id"]} for row in rows() if row["split"] == "test"]
    assert read_rows(table, columns=["split"])["split"].to_pylist() == [row["split"] for row in rows()]


def test_a_split_without_rows(table):
    assert row_count(table, "absent") == 0
    assert read_rows(table, "absent").num_rows == 0
    assert list(read_images(table, "absent")) == []
    assert groups_of(table, "absent") == []


def test_groups_can_be_read_in_any_order(table):
    own = [row["image"] for row in rows() if row["split"] == "train"]
    groups = groups_of(table, "train")
    for group in reversed(groups):
        assert list(group.images()) == own[group.start : group.start + group.rows]
    assert [group.start for group in groups] == [sum(each.rows for each in groups[:place]) for place in range(len(groups))]
    assert sum(group.rows for group in groups) == len(own)


def test_pictures_by_id_in_any_shard(table):
    pictures = {row["id"]: row["image"] for row in rows()}
    wanted = ["test/05", "train/00", "library/00", "train/00"]
    assert read_images_of(table, wanted) == {name: pictures[name] for name in wanted}
    assert read_images_of(table, ["train/03", "absent"]) == {"train/03": pictures["train/03"]}
    assert read_images_of(table, []) == {}


def test_row_groups_that_hold_none_of_the_wanted_pictures_stay_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 5)
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", 2)
    path = write(tmp_path / "images", rows())
    read, real = [], pq.ParquetFile.read_row_group

    def noted(file, number, columns):
        read.append((number, *columns))
        return real(file, number, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    assert set(read_images_of(path, ["train/06", "train/07"])) == {"train/06", "train/07"}
    assert read == [(0, "id"), (1, "id"), (1, "image")]  # and nothing of the second shard


def test_an_encoders_split(table):
    split = Split(table, "test")
    own = [row["image"] for row in rows() if row["split"] == "test"]
    assert len(split) == len(own)
    assert list(split.items()) == own
    assert [split.open(item).getpixel((0, 0))[0] for item in split.items()] == [13, 14, 15, 16, 17, 18]


def test_new_rows_change_the_shards_that_they_stand_in_alone(tmp_path, monkeypatch):
    """One new row moved the end of every shard behind it: dvc stored nearly the whole table again."""
    monkeypatch.setattr(tables, "ROWS_PER_SHARD", 10)
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 8)
    given = [row | {"id": f"{place:05}/{row['id']}"} for place in range(0, 3000, 10) for row in rows()[:1]]
    new = [rows()[0] | {"id": f"{place:05}/new"} for place in (1201, 1202, 1203)]
    before, after = write(tmp_path / "before", given), write(tmp_path / "after", sorted(given + new, key=lambda row: row["id"]))
    assert read_rows(after)["id"].to_pylist() == sorted(row["id"] for row in given + new)
    old, now = ({artifacts.sha256_of(shard): shard for shard in shards(path)} for path in (before, after))
    assert 20 < len(old) < 45
    assert len(now.keys() - old.keys()) <= 2
    gone = [row for row in given if not row["id"].startswith("005")]
    assert len({artifacts.sha256_of(shard) for shard in shards(write(tmp_path / "gone", gone))} - old.keys()) <= 1


def test_the_same_rows_give_the_same_files(table):
    assert artifacts.sha256_of(write(table.with_name("again"), rows())) == artifacts.sha256_of(table)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_rows_in_batches_give_the_same_files_as_one_by_one(table, size, monkeypatch):
    """Curation writes columns: files that depended on the size of its batches would be stored anew by dvc."""
    monkeypatch.setattr(tables, "ROWS_PER_SHARD", 5)
    path = table.with_name("batches")
    with writing_batches(path, CURATED_SCHEMA) as add:
        for start in range(0, len(rows()), size):
            add(pa.RecordBatch.from_pylist(rows()[start : start + size], schema=CURATED_SCHEMA))
    assert artifacts.sha256_of(path) == artifacts.sha256_of(write(table.with_name("rows"), rows()))


def test_where_groups_and_shards_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 3)
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", 4)
    path = write(tmp_path / "images", rows())
    assert groups_by_shard(path) == [[3, 3, 3, 3], [3, 3, 2]]
    assert [shard.name for shard in shards(path)] == ["00000.parquet", "00001.parquet"]
    # a group that ends with the last row leaves no empty one behind it
    assert groups_by_shard(write(tmp_path / "whole", rows()[:12])) == [[3, 3, 3, 3]]


def test_big_pictures_make_smaller_groups_and_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BYTES_PER_GROUP", 250)
    monkeypatch.setattr(tables, "BYTES_PER_SHARD", 550)
    given = [row | {"image": bytes(100)} for row in rows()]
    # 300 bytes reach the limit of a group, two groups that of a shard
    assert groups_by_shard(write(tmp_path / "images", given)) == [[3, 3], [3, 3], [3, 3], [2]]


def test_a_table_without_rows_has_its_columns(tmp_path):
    path = write(tmp_path / "images", [])
    assert len(shards(path)) == 1
    assert read_schema(path) == CURATED_SCHEMA
    assert row_count(path) == row_count(path, "train") == 0
    assert read_rows(path).to_pylist() == list(read_batches(path, ["id"], 8)) == []
    assert read_rows(path, "test", ["id"]).schema.names == ["id"]
    assert read_images_of(path, ["x"]) == {}


def test_a_lost_shard_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", 1)
    path = write(tmp_path / "images", rows())
    (path / "00000.parquet").unlink()
    (path / "00003.parquet").unlink()
    with pytest.raises(UserError, match=r"images lacks 00000\.parquet, 00003\.parquet\. `dvc checkout`"):
        row_count(path)


def test_what_is_no_picture_table(tmp_path):
    path = tmp_path / "images"
    with pytest.raises(UserError, match=r"images is not a picture table: it is missing\. `dvc checkout` brings back"):
        shards(path)
    path.touch()
    with pytest.raises(UserError, match="it is a file"):
        read_rows(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="it is empty"):
        row_count(path)


def test_foreign_files_are_named_but_hidden_ones_do_no_harm(tmp_path):
    path = write(tmp_path / "images", rows())
    (path / ".DS_Store").write_bytes(b"x")
    assert row_count(path) == len(rows())
    (path / "part-1.parquet").write_bytes(shards(path)[0].read_bytes())  # would be rows that are in the table twice
    with pytest.raises(UserError, match=r"images holds part-1\.parquet, which does not belong to a picture table"):
        row_count(path)


@pytest.mark.parametrize(
    "read",
    [
        read_schema,
        read_rows,
        row_count,
        lambda path: list(read_batches(path, ["id"], 8)),
        lambda path: list(read_images(path, "test")),
        lambda path: read_images_of(path, ["test/05"]),
    ],
)
@pytest.mark.parametrize("damage", ["no Parquet at all", "the end is missing"])
def test_a_broken_shard_is_named(tmp_path, monkeypatch, read, damage):
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 8)
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", 1)
    path = write(tmp_path / "images", rows())
    broken = path / "00001.parquet"
    broken.write_bytes(b"no Parquet" if damage == "no Parquet at all" else broken.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"images/00001\.parquet is not a readable Parquet file: .*`dvc repro` makes it anew"):
        read(path)


def test_pictures_that_are_damaged_inside_their_shard_name_it(tmp_path):
    path = write(tmp_path / "images", rows())
    shard = path / "00000.parquet"
    place = pq.read_metadata(shard).row_group(0).column(CURATED_SCHEMA.names.index("image")).data_page_offset
    data = bytearray(shard.read_bytes())
    data[place : place + 60] = bytes(60)
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"00000\.parquet is not a readable Parquet file"):
        list(groups_of(path, "test")[0].images())


def test_a_shard_with_other_columns_is_named(tmp_path):
    path = write(tmp_path / "images", rows())
    (path / "00001.parquet").write_bytes(shards(write(tmp_path / "source", [], IMAGES_SCHEMA))[0].read_bytes())
    with pytest.raises(UserError, match=r"00001\.parquet has other columns than the shards before it"):
        read_rows(path)


def test_a_table_is_never_written_over_another(tmp_path):
    path = write(tmp_path / "images", rows())
    with pytest.raises(FileExistsError):
        write(path, [])
    assert row_count(path) == len(rows())


def test_a_row_of_another_form_leaves_no_file_open(tmp_path):
    with pytest.raises(pa.ArrowException), artifacts.replacing(tmp_path / "images") as temporary:
        write(temporary, [*rows(), rows()[0] | {"label": 7}])
    assert list(tmp_path.iterdir()) == []


def test_one_picture_is_one_group(tmp_path):
    path = write(tmp_path / "images", [row for row in rows() if row["split"] == "library"])
    assert groups_of(path, "library") == [Group(path / "00000.parquet", 0, "library", 0, 1)]
    assert isinstance(Split(path, "library").open(next(read_images(path, "library"))), Image.Image)
