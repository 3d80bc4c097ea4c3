import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assets.pictures import table as tables
from assets.pictures.table import Group, shards, writing_rows
from assets.training import data
from assets.training.length import batches_per_epoch

ROWS = 40
SCHEMA = pa.schema([("image", pa.binary()), ("split", pa.string())])


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Forty pictures, each of one grey level, its number in the training split; two of another split among them."""
    splits = ["test" if number in (5, 30) else "train" for number in range(ROWS + 2)]
    levels = iter(range(ROWS))
    pictures = []
    for split in splits:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (next(levels),) * 3 if split == "train" else (255, 0, 0)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    monkeypatch.setattr(tables, "ROWS_PER_SHARD", 1 << 62)
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 9)
    monkeypatch.setattr(tables, "GROUPS_PER_SHARD", 2)
    with writing_rows(tmp_path / "images", SCHEMA) as write:
        for number, (picture, split) in enumerate(zip(pictures, splits, strict=True)):
            write({"id": str(number), "image": picture, "split": split})
    assert len(shards(tmp_path / "images")) == 3
    return tmp_path / "images"


def epoch(table, seed, batch_size=8, skip=0):
    generator = torch.Generator().manual_seed(seed)
    return list(batches(table, batch_size=batch_size, generator=generator, kept={}, skip=skip))


def batches(table, *, batch_size=8, generator, kept, skip=0, classes=None, images_per_class=None):
    return data.training_batches(
        table,
        "train",
        batch_size=batch_size,
        size=4,
        generator=generator,
        kept=kept,
        skip=skip,
        classes=classes,
        images_per_class=images_per_class,
    )


@pytest.mark.parametrize(("room", "decoded"), [(1 << 30, ROWS), (10 * 4 * 4 * 3, ROWS + ROWS - 10), (0, 2 * ROWS)])
def test_pictures_are_decoded_once_as_far_as_memory_goes(table, monkeypatch, room, decoded):
    calls, real = [], data.decode
    monkeypatch.setattr(data, "decode", lambda picture: calls.append(1) or real(picture))
    monkeypatch.setattr(data, "KEPT_BYTES", room)
    kept = {}
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        for rows, pixels in batches(table, generator=generator, kept=kept):
            assert pixels[:, 0, 0, 0].tolist() == rows.tolist()
    assert len(calls) == decoded


@pytest.mark.parametrize(("pictures", "size"), [(16384, 1 << 30), (6, 1 << 30), (16384, 500)])
def test_every_training_picture_once_an_epoch_whatever_the_pool_holds(table, monkeypatch, pictures, size):
    monkeypatch.setattr(data, "SHUFFLE_POOL", pictures)
    monkeypatch.setattr(data, "POOL_BYTES", size)
    shown = epoch(table, seed=1)
    rows = np.concatenate([rows for rows, _ in shown])
    assert sorted(rows) == list(range(ROWS))
    assert list(rows) != list(range(ROWS))
    for rows, pixels in shown:
        assert pixels.shape == (8, 3, 4, 4)
        assert pixels[:, 0, 0, 0].tolist() == rows.tolist()
    assert [rows.tolist() for rows, _ in epoch(table, seed=1)] == [rows.tolist() for rows, _ in shown]
    assert [rows.tolist() for rows, _ in epoch(table, seed=2)] != [rows.tolist() for rows, _ in shown]


def order_of_one_file(file, split, generator, pool):
    """How one Parquet file with all row groups was shuffled before tables had shards: what recorded results were trained with."""
    with pq.ParquetFile(file) as parquet:
        masks = [pc.equal(parquet.read_row_group(group, columns=["split"])["split"], split) for group in range(parquet.num_row_groups)]
        counts = [pc.sum(mask).as_py() for mask in masks]
        groups = [group for group, count in enumerate(counts) if count]
        for chosen in torch.randperm(len(groups), generator=generator).tolist():
            group = groups[chosen]
            images = parquet.read_row_group(group, columns=["image"])["image"].filter(masks[group]).to_pylist()
            for row, picture in enumerate(images, start=sum(counts[:group])):
                pool.add((row, picture))
                while len(pool) > data.SHUFFLE_POOL:
                    yield from pool.leave()
        yield from pool.rest()


@pytest.mark.parametrize("pool", [8192, 100])
@pytest.mark.parametrize("by_class", [False, True])
def test_shards_do_not_change_the_order_of_training(tmp_path, monkeypatch, pool, by_class):
    """3,000 rows in the row groups of 512 that they always had, but in one shard, in two and in six: the same rows, one after the other."""
    monkeypatch.setattr(data, "SHUFFLE_POOL", pool)
    splits = ["train"] * 1800 + ["validation"] * 300 + ["test"] * 900
    given = {"image": [number.to_bytes(2, "little") for number in range(3000)], "split": splits}
    pq.write_table(pa.table(given, schema=SCHEMA), tmp_path / "images.parquet", row_group_size=512)

    def shuffled(how, path, split):
        generator = torch.Generator().manual_seed(5)
        classes = np.arange(1800) % 70
        return list(how(path, split, generator, data.ClassPool(classes, 2, generator) if by_class else data.Pool(generator)))

    monkeypatch.setattr(tables, "ROWS_PER_SHARD", 1 << 62)
    for groups_per_shard in (1, 4, 16):
        monkeypatch.setattr(tables, "GROUPS_PER_SHARD", groups_per_shard)
        table = tmp_path / f"shards of {groups_per_shard}"
        with writing_rows(table, SCHEMA) as write:
            for number, row in enumerate(pa.table(given, schema=SCHEMA).to_pylist()):
                write(row | {"id": str(number)})
        assert len(shards(table)) == -(-6 // groups_per_shard)
        for split in ("train", "validation", "test"):
            order = shuffled(data._shuffled, table, split)
            assert order == shuffled(order_of_one_file, tmp_path / "images.parquet", split)
            assert len(order) == splits.count(split)
            assert order != sorted(order)


def test_big_pictures_leave_the_pool_before_it_outgrows_memory(table, monkeypatch):
    read, real = [], Group.images

    def counted(group):
        for picture in real(group):
            read.append(len(picture))
            yield picture

    monkeypatch.setattr(Group, "images", counted)
    monkeypatch.setattr(data, "POOL_BYTES", 500)
    generator = torch.Generator().manual_seed(0)
    next(data._shuffled(table, "train", generator, data.Pool(generator)))
    assert sum(read) <= 500 + max(read)


def test_batches_already_done_are_left_out_undecoded(table, monkeypatch):
    whole = epoch(table, seed=3)
    calls, real = [], data.decode
    monkeypatch.setattr(data, "decode", lambda picture: calls.append(1) or real(picture))
    for skip in range(len(whole) + 1):
        rest = epoch(table, seed=3, skip=skip)
        assert [rows.tolist() for rows, _ in rest] == [rows.tolist() for rows, _ in whole[skip:]]
    assert len(calls) == sum(range(ROWS, -1, -8))
    assert epoch(table, seed=3, batch_size=100, skip=1) == []


def test_full_batches_only_but_a_small_split_is_one_batch(table):
    assert [len(rows) for rows, _ in epoch(table, seed=0, batch_size=16)] == [16, 16]
    assert [len(rows) for rows, _ in epoch(table, seed=0, batch_size=100)] == [ROWS]
    assert (batches_per_epoch(ROWS, 16), batches_per_epoch(ROWS, 100)) == (2, 1)


def test_pictures_come_in_runs_of_a_class_and_each_once_an_epoch(table):
    classes = np.arange(ROWS) // 5  # eight classes of five
    generator = torch.Generator().manual_seed(0)
    rows = np.concatenate([rows for rows, _ in batches(table, generator=generator, kept={}, classes=classes, images_per_class=2)])
    assert sorted(rows) == list(range(ROWS))
    runs = classes[rows[:32]].reshape(16, 2)  # two rounds of two of every class; then one is left of each
    assert (runs[:, 0] == runs[:, 1]).all()
    assert set(runs[:8, 0]) == set(runs[8:, 0]) == set(range(8))
    assert len(set(classes[rows[32:]])) == 8
    again = batches(table, generator=torch.Generator().manual_seed(0), kept={}, classes=classes, images_per_class=2, skip=2)
    assert np.concatenate([rows for rows, _ in again]).tolist() == rows[16:].tolist()


def test_runs_of_a_class_also_from_a_pool_that_is_small(table, monkeypatch):
    monkeypatch.setattr(data, "SHUFFLE_POOL", 12)
    classes = np.arange(ROWS) // 5
    generator = torch.Generator().manual_seed(0)
    rows = np.concatenate([rows for rows, _ in batches(table, generator=generator, kept={}, classes=classes, images_per_class=2)])
    assert sorted(rows) == list(range(ROWS))
    assert (classes[rows][:-1] == classes[rows][1:]).sum() >= 12  # by chance it would be four


def test_prefetched_items_are_the_same_and_an_error_is_raised():
    assert list(data.prefetched(iter(range(7)), depth=2)) == list(range(7))
    assert list(data.prefetched([], depth=2)) == []

    def breaks():
        yield 1
        raise ValueError("at the second")

    items = data.prefetched(breaks(), depth=2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="at the second"):
        next(items)
    made = []
    few = data.prefetched((made.append(item) or item for item in range(100)), depth=2)
    next(few)
    few.close()
    assert len(made) <= 4
