import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from assets.training import data

ROWS = 40


@pytest.fixture
def table(tmp_path):
    """Forty pictures, each of one grey level, its number in the training split; two of another split among them."""
    splits = ["test" if number in (5, 30) else "train" for number in range(ROWS + 2)]
    levels = iter(range(ROWS))
    pictures = []
    for split in splits:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (next(levels),) * 3 if split == "train" else (255, 0, 0)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    pq.write_table(pa.table({"image": pictures, "split": splits}), tmp_path / "images.parquet", row_group_size=9)
    return tmp_path / "images.parquet"


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


def test_big_pictures_leave_the_pool_before_it_outgrows_memory(table, monkeypatch):
    read, real = [], data.pictures

    def counted(*arguments):
        for item in real(*arguments):
            read.append(len(item[1]))
            yield item

    monkeypatch.setattr(data, "pictures", counted)
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
    assert (data.batches_per_epoch(ROWS, 16), data.batches_per_epoch(ROWS, 100)) == (2, 1)


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


def test_prefetched_items_are_the_same_and_an_error_is_told():
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
