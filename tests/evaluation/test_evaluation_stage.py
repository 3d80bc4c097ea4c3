"""The stage on real PNGs and a tiny open_clip model of random weights: what it reads, writes and refuses."""

from __future__ import annotations

import io
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets import artifacts
from assets.curated_images.nearest import NEAREST_SCHEMA
from assets.errors import UserError
from assets.evaluation.stage import evaluate
from assets.evaluations import TestSplit, read_evaluation
from assets.params import Evaluation
from assets.pictures.schema import CURATED_SCHEMA, SPLITS
from assets.pictures.table import read_rows, writing_rows
from tests.models import make_blind_to_black, write_model

RECIPE = "gpr"
SETTINGS = Evaluation(
    seed=0,
    device="cpu",
    precision="fp32",
    batch_size=4,
    knn_k=21,
    knn_temperature=0.1,
    bootstrap_samples=200,
    confidence=0.95,
    sibling_correlation=0.9,
    prompts=["{}", "a picture of {}"],
    benchmarks_root="data/benchmarks",
)


def picture(seed: int) -> bytes:
    fields = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(fields).resize((40, 32), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def row(split: str, name: str, label: str | None, class_name: str, group: str | None, captions: list[str], seed: int) -> dict[str, object]:
    known = {
        "split": split,
        "id": name,
        "label": label,
        "class_name": class_name,
        "group": group,
        "family": label,
        "captions": captions,
        "image": picture(seed),
    }
    return known | {"source": "test", "license": "CC0-1.0", "attribution": "the tests", "width": 40, "height": 32, "sha256": f"{seed:064}"}


# Labels are not in the order of the ids, nor of the class names; "b/1" is alone in its class, "z/1" and "z/2" have no captions.
TEST_ROWS = [
    row("test", "a/1", "u2", "red heart", "symbols", ["love", "valentine"], 0),
    row("test", "a/2", "u2", "red heart", "symbols", ["love"], 1),
    row("test", "b/1", "u3", "sailboat", "travel", ["ship", "ship"], 2),
    row("test", "c/1", "u10", "cat face", None, ["animal", "love"], 3),
    row("test", "c/2", "u10", "cat face", None, [], 3),  # the same picture as c/1
    row("test", "z/1", "u1", "zebra", "animals", [], 5),
    row("test", "z/2", "u1", "zebra", "animals", [], 6),
]
OTHER_ROWS = [
    row("train", "d/1", "u4", "dog face", "animals", ["bark"], 7),
    row("train", "d/2", "u4", "dog face", "animals", ["bark"], 8),
    row("validation", "d/3", "u4", "dog face", "animals", ["bark"], 9),
    row("library", "e", None, "", None, ["a beach"], 10),
]


def write_curated(rows: list[dict[str, object]]) -> None:
    with artifacts.replacing(artifacts.CURATED_IMAGES) as temporary, writing_rows(temporary, CURATED_SCHEMA) as write:
        for each in sorted(rows, key=lambda each: SPLITS.index(str(each["split"]))):
            write(each)
    nearest = [
        {"id": each["id"], "nearest": "d/1", "correlation": 0.97 if each["id"] == "z/2" else 0.1, "difference": 0.2}
        for each in rows
        if each["split"] == "test"
    ]
    pq.write_table(pa.Table.from_pylist(nearest, schema=NEAREST_SCHEMA), artifacts.NEAREST)


def card(recipe: str) -> dict[str, object]:
    """What a training stage writes: gpr is made from base, gpr_rea from both."""
    models = [
        {"recipe": "base", "stage": "base_clip", "params": {"epochs": 30, "guards": {"min_spread": 0.1}}},
        {"recipe": "gpr", "stage": "image_tower", "params": {"lr": 0.0005}},
        {"recipe": "gpr_rea", "stage": "text_tower", "params": {"lr": 0.003}},
    ]
    number = [each["recipe"] for each in models].index(recipe)
    return {**models[number], "made_from": models[:number]}


def build_model(directory: Path, broken: bool = False) -> None:
    import torch

    from assets.clip.model import save_weights

    shutil.rmtree(directory, ignore_errors=True)
    model = write_model(directory)
    if broken:
        torch.nn.init.constant_(model.visual.proj, float("nan"))
        save_weights(model, directory)
    artifacts.write_json(directory / artifacts.MODEL_CARD, card(directory.name))


def realign(recipe: str, start: str) -> None:
    """models/<recipe>: the image tower of `start`, another projection of the text tower."""
    from safetensors.torch import load_file, save_file

    from assets.clip.model import WEIGHTS

    directory = artifacts.model_dir(recipe)
    shutil.copytree(artifacts.model_dir(start), directory)
    state = load_file(directory / WEIGHTS)
    state["text_projection"] = state["text_projection"].flip(0).contiguous()
    save_file(state, directory / WEIGHTS)
    artifacts.write_json(directory / artifacts.MODEL_CARD, card(recipe))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_curated(TEST_ROWS + OTHER_ROWS)
    build_model(artifacts.model_dir(RECIPE))
    return artifacts.evaluation_dir(RECIPE)


def test_what_it_writes(here: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="assets.evaluation")
    evaluate(SETTINGS, RECIPE)
    assert sorted(path.name for path in here.iterdir()) == [
        "benchmarks.json",
        "image_embeddings.npy",
        "made_with.json",
        "metrics.json",
        "per_class.parquet",
        "per_query.parquet",
        "text_embeddings.npy",
    ]
    found = artifacts.read_json(here / "made_with.json")
    assert (found["recipe"], found["chain"]) == (RECIPE, ["base", "gpr"])
    assert found["model_sha256"] == artifacts.sha256_of(artifacts.model_dir(RECIPE))
    of_models = {"base_clip.epochs": 30, "base_clip.guards.min_spread": 0.1, "image_tower.lr": 0.0005}
    not_of_the_numbers = {"device", "batch_size", "benchmarks_root"}  # artefacts name no place of this machine
    of_evaluation = {f"evaluation.{key}": value for key, value in SETTINGS.model_dump(exclude=not_of_the_numbers).items()}
    assert found["settings"] == of_models | of_evaluation
    metrics = artifacts.read_json(here / "metrics.json")
    assert metrics["recipe"] == RECIPE
    assert metrics["counts"] == {"images": 7, "classes": 4, "captions": 4}

    per_query = pq.read_table(here / "per_query.parquet")
    assert per_query["id"].to_pylist() == [each["id"] for each in TEST_ROWS]
    assert per_query["label"].to_pylist() == [each["label"] for each in TEST_ROWS]
    assert per_query["group"].to_pylist() == [each["group"] for each in TEST_ROWS]
    precisions = per_query["average_precision"].to_pylist()
    assert [value is None for value in precisions] == [each["id"] == "b/1" for each in TEST_ROWS]
    assert [value is None for value in per_query["hit_at_1"].to_pylist()] == [value is None for value in precisions]
    assert precisions[3:5] == [100, 100]  # the same picture twice
    known = [value for value in precisions if value is not None]
    assert metrics["image_to_image"]["map"] == pytest.approx(np.mean(known), abs=1e-4)
    assert metrics["knn"]["accuracy"] == pytest.approx(100 * np.mean(per_query["knn_correct"].to_pylist()), abs=1e-4)
    assert metrics["zero_shot"]["accuracy"] == pytest.approx(100 * np.mean(per_query["zero_shot_correct"].to_pylist()), abs=1e-4)

    per_class = pq.read_table(here / "per_class.parquet").to_pylist()
    assert [each["label"] for each in per_class] == ["u1", "u10", "u2", "u3"]
    assert [each["class_name"] for each in per_class] == ["zebra", "cat face", "red heart", "sailboat"]
    assert [each["group"] for each in per_class] == ["animals", None, "symbols", "travel"]
    assert [each["images"] for each in per_class] == [2, 2, 2, 1]
    assert [each["sibling"] for each in per_class] == [True, False, False, False]
    assert (metrics["without_siblings"]["classes"], metrics["without_siblings"]["images"]) == (3, 5)
    apart = [each["recall_at_5"] for each in per_class[1:]]
    assert metrics["without_siblings"]["text_to_image"] == {"recall_at_5": pytest.approx(np.mean(apart), abs=1e-4)}
    assert metrics["text_to_image"]["recall_at_5"] == pytest.approx(np.mean([each["recall_at_5"] for each in per_class]), abs=1e-4)
    values = ", zero-shot {}, text→image R@5 {}, average {} percent".format(
        *(f"{value:.1f}" for value in (metrics["zero_shot"]["accuracy"], metrics["text_to_image"]["recall_at_5"], metrics["average"]))
    )
    assert "gpr: image→image mAP" in caplog.text
    assert values in caplog.text


def test_what_it_writes_is_read_back(here: Path):
    evaluate(SETTINGS, RECIPE)
    found = read_evaluation(RECIPE, TestSplit(read_rows(artifacts.CURATED_IMAGES, "test")))
    assert found.metrics["recipe"] == found.made_with["recipe"] == RECIPE
    assert (len(found.images), len(found.texts), found.level) == (7, 4 + 4, 0.95)


def test_without_a_card_nothing_is_encoded(here: Path):
    (artifacts.model_dir(RECIPE) / artifacts.MODEL_CARD).unlink()
    with pytest.raises(UserError, match=r"data/models/gpr/model_card\.json is not there .*dvc repro"):
        evaluate(SETTINGS, RECIPE)
    assert not (artifacts.WORK / "embeddings").exists()


def test_embeddings_are_the_models_own(here: Path):
    import torch

    from assets.clip import load_clip

    evaluate(SETTINGS, RECIPE)
    images, texts = np.load(here / "image_embeddings.npy"), np.load(here / "text_embeddings.npy")
    model, preprocess, tokenizer = load_clip(artifacts.model_dir(RECIPE))
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.open(io.BytesIO(each["image"])).convert("RGB")) for each in TEST_ROWS])
        expected_images = model.encode_image(pixels, normalize=True).numpy()
        wanted = ["zebra", "cat face", "red heart", "sailboat", "animal", "love", "ship", "valentine"]
        expected_texts = model.encode_text(tokenizer(wanted), normalize=True).numpy()
    assert images.dtype == texts.dtype == np.float32
    np.testing.assert_allclose(images, expected_images, atol=1e-5)
    np.testing.assert_allclose(texts, expected_texts, atol=1e-5)


def test_the_same_inputs_give_the_same_bytes(here: Path):
    evaluate(SETTINGS, RECIPE)
    first = {path.name: path.read_bytes() for path in here.iterdir()}
    write_curated(TEST_ROWS)  # and nothing depends on other splits
    evaluate(SETTINGS, RECIPE)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == first


def test_no_captions_anywhere(here: Path):
    write_curated([each | {"captions": []} for each in TEST_ROWS])
    evaluate(SETTINGS, RECIPE)
    metrics = artifacts.read_json(here / "metrics.json")
    assert metrics["text_to_image"]["caption_recall_at_5"] is None
    assert metrics["counts"]["captions"] == 0
    assert len(np.load(here / "text_embeddings.npy")) == 4


@pytest.mark.parametrize(("rows", "count"), [(OTHER_ROWS, 0), (TEST_ROWS[1:4], 3)])
def test_a_test_split_without_a_pair_is_refused(here: Path, rows: list[dict[str, object]], count: int):
    write_curated(rows)
    with pytest.raises(UserError, match=rf"has {count} images of as many classes; .*raise curated_images\.test_fraction"):
        evaluate(SETTINGS, RECIPE)
    assert not here.exists()


def test_a_model_that_gives_nan_is_refused_and_earlier_results_stay(here: Path):
    evaluate(SETTINGS, RECIPE)
    first = {path.name: path.read_bytes() for path in here.iterdir()}
    build_model(artifacts.model_dir(RECIPE), broken=True)
    with pytest.raises(UserError, match=r"data/models/gpr gives no usable embedding .* for 7 of 7 inputs, first 'a/1'"):
        evaluate(SETTINGS, RECIPE)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == first


def test_a_blank_picture_is_a_miss_and_stops_nothing(here: Path, caplog: pytest.LogCaptureFixture):
    make_blind_to_black(artifacts.model_dir(RECIPE))
    black = io.BytesIO()
    Image.new("RGB", (40, 32)).save(black, "PNG")
    write_curated([each | {"image": black.getvalue()} if each["id"] == "a/2" else each for each in TEST_ROWS])
    evaluate(SETTINGS, RECIPE)
    assert "gives 1 of 7 test images a zero embedding, first 'a/2'" in caplog.text
    assert np.flatnonzero(~np.load(here / "image_embeddings.npy").any(axis=1)).tolist() == [1]
    (row,) = [each for each in pq.read_table(here / "per_query.parquet").to_pylist() if each["id"] == "a/2"]
    assert (row["average_precision"], row["hit_at_1"], row["knn_correct"], row["zero_shot_correct"]) == (0, False, False, False)
    write_curated([each | {"image": black.getvalue()} for each in TEST_ROWS])
    with pytest.raises(UserError, match="for 7 of 7 inputs"):
        evaluate(SETTINGS, RECIPE)


def write_benchmark(seeds: range) -> None:
    pictures = artifacts.DATA / "benchmarks" / "gpr1200" / "images"
    pictures.mkdir(parents=True)
    for seed in seeds:
        (pictures / f"{1 + seed // 2}_{seed}.jpg").write_bytes(picture(seed))


def test_a_recipe_with_the_image_tower_of_another_encodes_no_picture_again(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither test images nor pictures of benchmarks: gpr_rea has gpr's image tower."""
    import open_clip

    write_benchmark(range(6))
    realign("gpr_rea", RECIPE)
    seen, real = [], open_clip.model.CLIP.encode_image

    def counting(model, pixels, *given, **named):
        seen.append(len(pixels))
        return real(model, pixels, *given, **named)

    monkeypatch.setattr(open_clip.model.CLIP, "encode_image", counting)
    evaluate(SETTINGS, RECIPE)
    assert sum(seen) == 6 + 6  # c/1 and c/2 are the same picture
    evaluate(SETTINGS, "gpr_rea")
    assert sum(seen) == 6 + 6
    first, second = (artifacts.read_json(artifacts.evaluation_dir(recipe) / "benchmarks.json") for recipe in (RECIPE, "gpr_rea"))
    assert first == second
    texts = [np.load(artifacts.evaluation_dir(recipe) / "text_embeddings.npy") for recipe in (RECIPE, "gpr_rea")]
    assert not np.allclose(*texts)  # it is another model

    changed = artifacts.DATA / "benchmarks" / "gpr1200" / "images" / "1_0.jpg"
    changed.write_bytes(picture(100))
    evaluate(SETTINGS, "gpr_rea")
    assert sum(seen) == 6 + 6 + 1, "the changed picture alone"


def test_benchmarks_are_measured_with_the_model_itself(here: Path):
    """Two of them, of real pictures, through the stage; what every protocol yields is tested with directions worked out by hand."""
    from assets.clip import load_clip

    write_benchmark(range(6))
    flickr = artifacts.DATA / "benchmarks" / "flickr30k"
    (flickr / "flickr30k-images").mkdir(parents=True)
    images = [{"filename": f"{seed}.jpg", "split": "test", "sentences": [{"raw": f"picture {seed}"}]} for seed in range(7)]
    for seed in range(7):
        (flickr / "flickr30k-images" / f"{seed}.jpg").write_bytes(picture(seed))
    (flickr / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))

    evaluate(SETTINGS, RECIPE)
    found = artifacts.read_json(here / "benchmarks.json")
    assert set(found["benchmarks"]) == {"gpr1200", "flickr30k"}
    assert found["table_1"]["image_to_image"]["gpr1200"] == found["benchmarks"]["gpr1200"]["map_with_query"]
    assert found["table_1"]["average"] is None
    assert len(found["skipped"]) == 14

    import torch

    model, preprocess, tokenizer = load_clip(artifacts.model_dir(RECIPE))
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.open(io.BytesIO(picture(seed))).convert("RGB")) for seed in range(7)])
        seen = model.encode_image(pixels, normalize=True).double().numpy()
        read = model.encode_text(tokenizer([f"picture {seed}" for seed in range(7)]), normalize=True).double().numpy()
    others = [[each for each in np.argsort(-(seen[:6] @ seen[query])) if each != query] for query in range(6)]
    rank_of_partner = [1 + order.index(query ^ 1) for query, order in enumerate(others)]
    assert found["benchmarks"]["gpr1200"]["map"] == pytest.approx(100 * np.mean([1 / rank for rank in rank_of_partner]), abs=1e-3)
    ranks = [1 + list(np.argsort(-(seen @ text))).index(row) for row, text in enumerate(read)]
    recall = found["benchmarks"]["flickr30k"]["text_to_image_recall_at_5"]
    assert recall == pytest.approx(100 * np.mean(np.array(ranks) <= 5), abs=1e-3)


def test_a_wrong_benchmark_layout_is_reported_before_anything_is_encoded(here: Path):
    folder = artifacts.DATA / "benchmarks" / "cub200"
    folder.mkdir(parents=True)
    (folder / "birds.txt").touch()
    build_model(artifacts.model_dir(RECIPE), broken=True)  # encoding would fail, with another message
    with pytest.raises(UserError, match=r"^benchmark cub200: data/benchmarks/cub200/CUB_200_2011/images\.txt is missing"):
        evaluate(SETTINGS, RECIPE)
    assert not here.exists()
