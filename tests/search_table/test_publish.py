from __future__ import annotations

import errno
import fcntl
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from assets import artifacts
from assets.errors import UserError
from assets.params import SearchTable
from assets.search_table import open_table, search, storage
from assets.search_table.stage import publish, without_embedding
from assets.search_table.versions import LOCK, named_full_disk
from tests.models import make_blind_to_black
from tests.search_table.conftest import CLASSES, RECIPE, curated_rows, write_curated, write_verdict

INDEXES = {"caption": "FTS", "captions": "FTS", "label": "BTREE", "source": "BITMAP", "split": "BITMAP"}
Settings = Callable[..., SearchTable]
TABLE = artifacts.LANCEDB / "images.lance"


def ids() -> list[str]:
    return open_table().search().select(["id"]).limit(1000).to_arrow()["id"].to_pylist()


def folder_size() -> int:
    return sum(file.stat().st_size for file in TABLE.rglob("*") if file.is_file())


def test_schema_is_the_design_pages(published: Path) -> None:
    expected = {
        name: pa.string()
        for name in ["id", "caption", "label", "class_name", "group", "source", "license", "attribution", "split", "sha256", "model"]
    }
    expected |= {"image": pa.binary(), "captions": pa.list_(pa.string()), "width": pa.int32(), "height": pa.int32()}
    expected |= {"vector": pa.list_(pa.float32(), 16)}
    schema = open_table().schema
    assert {field.name: field.type for field in schema} == expected
    assert not schema.field("id").nullable
    assert open_table().to_lance().lance_schema.fields()[0].is_unenforced_primary_key()


def test_what_it_was_made_from_is_recorded_rejected_pictures_too(published: Path) -> None:
    """The next drop is what is not in it: without the rejected ones, each broken file was new again in every drop."""
    recorded = pq.read_table(artifacts.ACCEPTED).to_pylist()
    expected = [{"id": row["id"], "sha256": row["sha256"]} for row in curated_rows()] + [{"id": "torn.jpg", "sha256": None}]
    assert recorded == sorted(expected, key=lambda row: row["id"])


def test_rows_are_the_curated_ones(published: Path) -> None:
    rows = {row["id"]: row for row in open_table().to_arrow().to_pylist()}
    curated = {row["id"]: row for row in curated_rows()}
    assert rows.keys() == curated.keys()
    assert open_table().count_rows() == len(curated)
    model = f"{RECIPE}@{artifacts.sha256_of(artifacts.model_dir(RECIPE))[:12]}"
    for key, row in rows.items():
        assert {name: row[name] for name in curated[key]} == curated[key]
        assert row["model"] == model
    captions = {key: rows[key]["caption"] for key in ("vendor0/0", "vendor0/3", "a.png", "b.png")}
    assert captions == {"vendor0/0": "red heart", "vendor0/3": "sailboat", "a.png": "", "b.png": "a beach at dusk"}


def test_a_class_name_is_the_caption_without_captions_too(unpublished: Path, settings_with: Settings) -> None:
    write_curated([row | {"captions": []} for row in curated_rows()])
    publish(settings_with(), RECIPE)
    assert set(open_table().to_arrow()["caption"].to_pylist()) == {*CLASSES, ""}


def test_vectors_are_what_plain_open_clip_gives(published: Path) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{artifacts.model_dir(RECIPE).resolve()}")
    rows = open_table().to_arrow().to_pylist()[::5]
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows])
        fresh = torch.nn.functional.normalize(model.eval().encode_image(pixels), dim=-1).numpy()
    stored = np.array([row["vector"] for row in rows])
    assert ((fresh * stored).sum(axis=1) >= 0.9999).all()
    assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)


def test_full_text_index(published: Path) -> None:
    table = open_table()
    assert {tuple(index.columns) for index in table.list_indices()} == {(name,) for name in INDEXES}
    hits = table.search("valentine", query_type="fts", fts_columns="captions").limit(100).to_arrow()
    assert hits.num_rows == 12
    assert set(hits["class_name"].to_pylist()) == {"red heart", "blue heart"}
    assert table.search("dusk", query_type="fts").limit(100).to_arrow()["id"].to_pylist() == ["b.png"]


def test_manifest_is_the_same_for_the_same_content(unpublished: Path, settings_with: Settings) -> None:
    publish(settings_with(), RECIPE)
    first = artifacts.TABLE_MANIFEST.read_bytes()
    manifest = json.loads(first)
    assert (manifest["rows"], manifest["dimension"], manifest["recipe"]) == (26, 16, RECIPE)
    assert manifest["model_sha256"] == artifacts.sha256_of(artifacts.model_dir(RECIPE))
    assert manifest["indexes"] == INDEXES
    assert str(unpublished) not in first.decode()

    publish(settings_with(), RECIPE)
    assert artifacts.TABLE_MANIFEST.read_bytes() == first

    rows = curated_rows()
    rows[3]["captions"] = ["something else"]
    write_curated(rows)
    publish(settings_with(), RECIPE)
    changed = {key for key, value in artifacts.read_json(artifacts.TABLE_MANIFEST).items() if value != manifest[key]}
    assert changed == {"metadata_sha256"}

    write_curated(curated_rows(first_seed=500))
    publish(settings_with(), RECIPE)
    changed = {key for key, value in artifacts.read_json(artifacts.TABLE_MANIFEST).items() if value != manifest[key]}
    assert changed - {"similarity"} == {"images_sha256", "metadata_sha256", "vectors_sha256_in_steps_of_0.0001"}


def test_publishing_again_replaces_and_does_not_pile_up(unpublished: Path, settings_with: Settings) -> None:
    publish(settings_with(), RECIPE)
    one = folder_size()
    write_curated(curated_rows(per_class=5))
    for _ in range(3):
        publish(settings_with(), RECIPE)
    assert sorted(ids()) == sorted(row["id"] for row in curated_rows(per_class=5))
    assert folder_size() <= 2 * one


def test_readers_never_miss_the_table(unpublished: Path, settings_with: Settings) -> None:
    publish(settings_with(), RECIPE)
    opened_before = lancedb.connect(artifacts.LANCEDB).open_table("images")
    assert opened_before.count_rows() == 26
    live, seen, over = open_table(), set(), threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(len(live.search().select(["id", "image"]).limit(1000).to_arrow()))

    reader = threading.Thread(target=read)
    reader.start()
    write_curated(curated_rows(per_class=5))
    try:
        publish(settings_with(), RECIPE)
    finally:
        over.set()
        reader.join()
    assert seen <= {26, 22}
    assert 26 in seen
    assert live.count_rows() == 22
    assert len(opened_before.to_arrow()) == 26  # who holds the version before may finish


def test_vector_index_from_the_given_number_of_rows(unpublished: Path, settings_with: Settings) -> None:
    write_curated(curated_rows(per_class=80))
    publish(settings_with(batch_size=64, index_from_rows=322), RECIPE)
    assert artifacts.read_json(artifacts.TABLE_MANIFEST)["indexes"]["vector"] == "IVF_SQ"
    query = open_table().to_arrow().to_pylist()[100]
    hits = search(query["image"], k=5)
    assert hits["id"][0].as_py() == query["id"]
    assert hits["_distance"][0].as_py() == pytest.approx(0, abs=1e-5)
    plan = open_table().search(query["vector"], vector_column_name="vector").distance_type("cosine").limit(5).explain_plan()
    assert "ANN" in plan
    publish(settings_with(batch_size=64, index_from_rows=323), RECIPE)
    assert "vector" not in artifacts.read_json(artifacts.TABLE_MANIFEST)["indexes"]


def test_filters_use_an_index(published: Path) -> None:
    plan = open_table().to_lance().scanner(columns=["id"], filter="source = 'vendor1' and split = 'train'").explain_plan()
    assert "ScalarIndexQuery" in plan


def test_an_index_that_finds_too_little_is_not_published(
    unpublished: Path, settings_with: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table was published whose index missed half of what exact search finds."""
    publish(settings_with(), RECIPE)
    before, real = open_table().version, storage.nearest
    monkeypatch.setattr(storage, "nearest", lambda *given: real(*given)[:5])
    write_curated(curated_rows(per_class=80))
    with pytest.raises(UserError, match=r"finds 50\.0 % of the ten nearest.*search_table\.min_recall.*refine_factor"):
        publish(settings_with(batch_size=64, index_from_rows=322), RECIPE)
    assert open_table().version == before


def test_held_back_recipe_is_not_published(unpublished: Path, settings_with: Settings) -> None:
    publish(settings_with(), RECIPE)
    before = open_table().version
    fallen = {"value": 24.1, "reference": 26.4, "difference": -2.3, "interval": [-3.4, -1.2], "outcome": "worse"}
    fine = {"value": 40.0, "reference": 30.0, "difference": 10.0, "interval": [9.0, 11.0], "outcome": "better"}
    families = {"image_to_image": fine, "text_to_image": fallen}
    write_verdict(decision="hold", families=families, reasons=["a", "Text to image must not fall, but fell."])
    with pytest.raises(UserError) as raised:
        publish(settings_with(), RECIPE)
    message = str(raised.value)
    assert "text_to_image fell by 2.30 points against base (26.40 → 24.10" in message
    assert "image_to_image" not in message
    for way_on in ("retrain", "promotion.recipe", "promotion.override_reason"):
        assert way_on in message
    assert open_table().version == before

    write_verdict(decision="publish", families=families, override_reason="the new icons matter more")
    write_curated(curated_rows(per_class=5))
    publish(settings_with(), RECIPE)
    assert open_table().version > before


def test_verdict_on_another_recipe(unpublished: Path, settings_with: Settings) -> None:
    write_verdict(recipe="gpr")
    with pytest.raises(UserError, match=r"judges 'gpr', but promotion\.recipe is 'mcip_rea'.*dvc repro promotion"):
        publish(settings_with(), RECIPE)


def test_broken_model_leaves_the_table_alone(unpublished: Path, settings_with: Settings) -> None:
    publish(settings_with(), RECIPE)
    before = open_table().version
    weights = artifacts.model_dir(RECIPE) / "open_clip_model.safetensors"
    state = load_file(weights)
    state["visual.proj"][:] = float("nan")
    save_file(state, weights)
    with pytest.raises(UserError, match=r"26 of 26 images no embedding, such as vendor1/0 \(the embedding is not finite"):
        publish(settings_with(), RECIPE)
    assert open_table().version == before


@pytest.mark.parametrize(("value", "why"), [(0.0, "is zero"), (np.inf, "is not finite"), (np.nan, "is not finite"), (0.99, "of norm 1")])
def test_which_images_have_no_embedding(value: float, why: str) -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert without_embedding(vectors, ["a", "b", "c"], Path("the model"), 0.0) == {}
    vectors[1, 1] = value
    found = without_embedding(vectors, ["a", "b", "c"], Path("the model"), 0.34)
    assert list(found) == ["b"]
    assert why in found["b"]
    with pytest.raises(UserError, match=r"1 of 3 images no embedding, such as b \(.*a share of 0\.33 .*max_share_left_out"):
        without_embedding(vectors, ["a", "b", "c"], Path("the model"), 0.33)
    with pytest.raises(UserError, match="3 of 3"):
        without_embedding(np.zeros_like(vectors), ["a", "b", "c"], Path("the model"), 1.0)


def with_black_pictures(count: int) -> list[dict[str, Any]]:
    rows = curated_rows()
    buffer = io.BytesIO()
    Image.new("RGB", (48, 40)).save(buffer, "PNG")
    for row in rows[5 : 5 + count]:
        row["image"] = buffer.getvalue()
    return rows


def test_a_picture_without_an_embedding_keeps_no_other_out(
    unpublished: Path, settings_with: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    make_blind_to_black(artifacts.model_dir(RECIPE))
    rows = with_black_pictures(1)
    write_curated(rows)
    publish(settings_with(batch_size=4), RECIPE)
    others = [row["id"] for row in rows if row is not rows[5]]
    assert ids() == others
    manifest = artifacts.read_json(artifacts.TABLE_MANIFEST)
    assert (manifest["rows"], manifest["left_out"]) == (25, {rows[5]["id"]: "the embedding is zero"})
    assert f"1 of 26 images no embedding, such as {rows[5]['id']} (the embedding is zero)" in caplog.text
    for row in rows[4], rows[6], rows[-1]:  # each still has its own vector
        hits = search(row["image"], k=1)
        assert (hits["id"][0].as_py(), hits["_distance"][0].as_py()) == (row["id"], pytest.approx(0, abs=1e-5))
    with pytest.raises(UserError, match="gives this query no embedding"):
        search(rows[5]["image"])


def test_more_pictures_without_an_embedding_than_allowed(unpublished: Path, settings_with: Settings) -> None:
    publish(settings_with(), RECIPE)
    before = open_table().version
    make_blind_to_black(artifacts.model_dir(RECIPE))
    write_curated(with_black_pictures(2))
    with pytest.raises(UserError, match=r"2 of 26 images no embedding.* share of 0\.05 .*search_table\.max_share_left_out"):
        publish(settings_with(), RECIPE)
    assert open_table().version == before
    publish(settings_with(max_share_left_out=0.1), RECIPE)
    assert len(ids()) == 24


def test_ids_must_be_unique(unpublished: Path, settings_with: Settings) -> None:
    rows = curated_rows()
    write_curated([*rows, rows[4]])
    with pytest.raises(UserError, match=f"'{rows[4]['id']}' 2 times"):
        publish(settings_with(), RECIPE)
    assert not artifacts.LANCEDB.exists()


def test_empty_library(unpublished: Path, settings_with: Settings) -> None:
    write_curated([])
    with pytest.raises(UserError, match="holds no images"):
        publish(settings_with(), RECIPE)


def test_one_publisher_at_a_time(unpublished: Path, settings_with: Settings) -> None:
    LOCK.parent.mkdir()
    with LOCK.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is publishing"):
            publish(settings_with(), RECIPE)
    publish(settings_with(), RECIPE)


def test_a_table_of_another_shape_is_replaced(unpublished: Path, settings_with: Settings) -> None:
    other = pa.table({"id": ["x"], "colour": ["red"], "vector": pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0], pa.float32()), 2)})
    lancedb.connect(artifacts.LANCEDB).create_table("images", data=other)
    publish(settings_with(), RECIPE)
    assert len(ids()) == 26
    assert open_table().schema.field("vector").type == pa.list_(pa.float32(), 16)
    assert "colour" not in open_table().schema.names


def test_full_disk_keeps_its_name() -> None:
    with pytest.raises(OSError, match="No space left") as raised, named_full_disk():
        raise RuntimeError("lance error: LanceError(IO): Unable to copy data to file: No space left on device (os error 28)")
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="something else"), named_full_disk():
        raise RuntimeError("something else")
