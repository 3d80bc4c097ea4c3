"""The exported graphs give the model's vectors, in another process too, and one that has no torch."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from open_clip.tokenizer import basic_clean
from PIL import Image
from tokenizers import Tokenizer

from assets import artifacts
from assets.clip.encoding import encode_texts
from assets.clip.kept_graphs import GRAPHS
from assets.clip.model import load_clip
from assets.clip.onnx_towers import OnnxTowers, _fixed
from assets.clip.readable import read_texts
from assets.errors import UserError
from assets.export.agreement import Sample, lowest_cosine, measured, recall
from assets.export.stage import export
from assets.export.tokenizer import write_tokenizer
from assets.params import read_params
from assets.search_table import search
from assets.search_table.query import model_of
from assets.search_table.stage import publish
from assets.search_table.table import open_version
from assets.search_table.versions import roll_back
from tests.models import write_model
from tests.search_table.conftest import RECIPE, make_workplace, retrain

TEXTS = ["a red heart", "a dog in the park", "Red  HEART!", "the colour green", "red " * 100, "naïve café &amp; 猫", "don't you’re"]

WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["open_clip"] = None  # importing them fails
from assets.search_table import embed, search
hits = search("a red heart", k=26)
picture = embed(hits["image"][0].as_py())[0].tolist()
print(json.dumps({"ids": hits["id"].to_pylist(), "distances": hits["_distance"].to_pylist(), "picture": picture}))
"""


@pytest.fixture(scope="module", params=["vit", "timm_and_hugging_face"])
def exported(request, tmp_path_factory: pytest.TempPathFactory, checkout: Path):
    """A workplace with a published table and its model's export: ViT with causal text, and EfficientNet with a masked BERT."""
    root = tmp_path_factory.mktemp("exported")
    write_model(root / "model", request.param)
    (root / "place").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_workplace(root / "place", checkout, root / "model", monkeypatch)
        publish(read_params()[0].search_table, RECIPE)
        export(read_params()[0].export.model_copy(update={"max_recall_lost": 100.0, "calibration_pictures": 16}), RECIPE)
    return root / "place"


@pytest.fixture
def workplace(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(exported)
    return exported


def test_tokens_readings_and_text_vectors_are_the_models(workplace):
    """A tokenizer that cut, padded or cleaned in another way gave other vectors for long and unusual texts alone."""
    model, _, tokenizer = load_clip(artifacts.model_dir(RECIPE))
    towers = OnnxTowers(artifacts.EXPORT / "fp32")
    own = tokenizer(TEXTS).numpy()
    assert np.array_equal(towers.tokenizer.tokens(TEXTS, own.shape[1]), own)
    for mine, theirs in zip(towers.readings(TEXTS), read_texts(tokenizer, TEXTS), strict=True):
        names = ("words", "unknown", "cut", "unreadable", "spelled")
        assert [getattr(mine, name) for name in names] == [getattr(theirs, name) for name in names]
    vectors = encode_texts(model, tokenizer, TEXTS, batch_size=4, device="cpu", precision="fp32")
    for texts in (TEXTS, TEXTS[:1], TEXTS[2:3]):  # alone, and padded to the longest
        found = towers.texts(texts)
        assert (np.einsum("td,td->t", found, [vectors[TEXTS.index(text)] for text in texts]) > 0.9999).all()
    assert towers.texts([]).shape == (0, towers.dimension)


def test_a_process_without_torch_gives_the_tables_vectors(workplace, checkout):
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], env={"PYTHONPATH": str(checkout), "PATH": ""}, capture_output=True, text=True, check=True
    )
    said = json.loads(run.stdout)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("towers: fp32", "towers: torch"))
    try:
        own = search("a red heart", k=26)
    finally:
        Path("params.yaml").write_text(text)
    assert said["ids"] == own["id"].to_pylist()
    assert np.allclose(said["distances"], own["_distance"].to_numpy(), atol=1e-5)
    stored = search("a red heart", k=1)
    assert stored["id"][0].as_py() == said["ids"][0]
    from assets.search_table import open_table

    row = open_table().search().where(f"id = '{said['ids'][0]}'").limit(1).to_list()[0]
    assert np.dot(row["vector"], said["picture"]) > 0.9999


def test_each_version_is_asked_by_its_own_graphs(workplace, tmp_path, monkeypatch, checkout):
    """After a rollback the export was of the newer model: its query vectors would mean nothing, so that each query waited for torch."""
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = search("a red heart", k=26)
    own = model_of(open_version())
    retrain(0.2)
    card = artifacts.read_json(artifacts.EXPORT / artifacts.EXPORT_CARD)
    sha256 = artifacts.sha256_of(artifacts.model_dir(RECIPE))
    artifacts.write_json(artifacts.EXPORT / artifacts.EXPORT_CARD, card | {"model_sha256": sha256})
    with artifacts.replacing(artifacts.EXPORT / "fp32" / "textual" / "model.onnx") as other:
        other.write_bytes(b"of another model")
    publish(read_params()[0].search_table, RECIPE)  # which comes after the export and keeps it
    newer = model_of(open_version())
    assert {folder.name for folder in GRAPHS.iterdir()} == {own, newer}
    with pytest.raises(Exception, match=r"model\.onnx"):
        search("a red heart")  # by that other graph, not by the older model's
    roll_back(None)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], env={"PYTHONPATH": str(checkout), "PATH": ""}, capture_output=True, text=True, check=True
    )
    said = json.loads(run.stdout)
    assert said["ids"] == before["id"].to_pylist()
    assert np.allclose(said["distances"], before["_distance"].to_numpy(), atol=1e-6)
    shutil.rmtree(GRAPHS)
    assert search("a red heart", k=26)["id"].equals(before["id"]), "without graphs, by torch"
    publish(read_params()[0].search_table.model_copy(update={"kept_publishes": 1, "kept_days": 0}), RECIPE)
    assert {folder.name for folder in GRAPHS.iterdir()} == {newer}, "the graphs go with the version"


def test_the_layouts_that_others_read(workplace):
    """Immich: inputs `text` int32 and `image`; transformers.js: `input_ids` int64 and `pixel_values`, the same vectors."""
    for precision in ("fp32", "int8"):
        folder = artifacts.EXPORT / precision
        config = json.loads((folder / "textual" / "tokenizer_config.json").read_text())
        assert config["pad_token"] is not None
        visual = onnxruntime.InferenceSession(folder / "visual" / "model.onnx")
        assert {"size", "mean", "std", "interpolation"} <= set(json.loads((folder / "visual" / "preprocess_cfg.json").read_text()))
        assert [(each.name, each.type) for each in visual.get_inputs()] == [("image", "tensor(float)")]
        textual = onnxruntime.InferenceSession(folder / "textual" / "model.onnx")
        assert [(each.name, each.type) for each in textual.get_inputs()] == [("text", "tensor(int32)")]
    towers = OnnxTowers(artifacts.EXPORT / "fp32")
    web = onnxruntime.InferenceSession(artifacts.EXPORT / "transformers_js" / "onnx" / "text_model.onnx")
    assert [(each.name, each.type) for each in web.get_inputs()] == [("input_ids", "tensor(int64)")]
    assert [each.name for each in web.get_outputs()] == ["text_embeds"]
    tokens = towers.tokenizer.tokens(TEXTS[:2], towers.tokenizer.context).astype(np.int64)
    assert np.allclose(web.run(None, {"input_ids": tokens})[0], towers.texts(TEXTS[:2]), atol=1e-4)
    names = {path.name for path in (artifacts.EXPORT / "transformers_js" / "onnx").iterdir()}
    assert names == {"text_model.onnx", "text_model_quantized.onnx", "vision_model.onnx", "vision_model_quantized.onnx"}
    assert {path.name for path in artifacts.EXPORT.iterdir()} == {"export.json", "fp32", "int8", "transformers_js"}


def test_a_reader_that_pads_and_scales_by_the_files_alone_gets_the_models_vectors(workplace):
    """As Immich does: every text is cut and padded to the context length by the library `tokenizers`, every picture scaled by PIL.

    Its padding token was another one than the model's, or a padded text gave another vector.
    """
    model, _, tokenizer = load_clip(artifacts.model_dir(RECIPE))
    texts = [text for text in TEXTS if not set("&’") & set(text)]  # entities and curly quotes are mended by ftfy alone, which it lacks
    own = encode_texts(model, tokenizer, texts, batch_size=4, device="cpu", precision="fp32")
    folder = artifacts.EXPORT / "fp32"
    context = json.loads((folder / "config.json").read_text())["text_cfg"]["context_length"]
    pad = json.loads((folder / "textual" / "tokenizer_config.json").read_text())["pad_token"]
    reader = Tokenizer.from_file(str(folder / "textual" / "tokenizer.json"))
    reader.enable_padding(length=context, pad_token=pad, pad_id=reader.token_to_id(pad))
    reader.enable_truncation(max_length=context)
    textual = onnxruntime.InferenceSession(folder / "textual" / "model.onnx")
    for text, vector in zip(texts, own, strict=True):
        tokens = np.array([reader.encode(" ".join(text.split())).ids], np.int32)
        assert np.dot(textual.run(None, {"text": tokens})[0][0], vector) > 0.9999
    told = json.loads((folder / "visual" / "preprocess_cfg.json").read_text())
    assert told["resize_mode"] in ("shortest", "squash") and Image.Resampling[told["interpolation"].upper()]
    stored = open_version().scanner(columns=["image", "vector"], limit=5).to_table().to_pylist()
    visual = onnxruntime.InferenceSession(folder / "visual" / "model.onnx")
    for row in stored:
        picture, side = Image.open(io.BytesIO(row["image"])).convert("RGB"), told["size"][0]
        if told["resize_mode"] == "squash":
            scaled = picture.resize((side, side), Image.Resampling[told["interpolation"].upper()])
        else:
            width, height = (int(side * length / min(picture.size)) for length in picture.size)
            left, top = (width - side) // 2, (height - side) // 2
            larger = picture.resize((width, height), Image.Resampling[told["interpolation"].upper()])
            scaled = larger.crop((left, top, left + side, top + side))
        pixels = (np.asarray(scaled, np.float32) / 255 - np.array(told["mean"], np.float32)) / np.array(told["std"], np.float32)
        vector = visual.run(None, {"image": pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
        assert np.dot(vector, row["vector"]) > 0.9999


def test_what_was_measured_is_in_the_card(workplace):
    card = artifacts.read_json(artifacts.EXPORT / artifacts.EXPORT_CARD)
    fp32, int8 = card["precisions"]["fp32"], card["precisions"]["int8"]
    assert min(fp32["picture_cosine"], fp32["text_cosine"]) > 0.9999
    lost = [value for name, value in fp32.items() if name.endswith("_lost") and value is not None]
    assert lost == [0.0] * len(lost)
    assert int8["textual_bytes"] < fp32["textual_bytes"]
    assert card["model_sha256"] == artifacts.sha256_of(artifacts.model_dir(RECIPE))


def test_gates(workplace, monkeypatch, caplog, tmp_path):
    """A graph that is another model was written all the same, or an int8 graph that finds nothing."""
    folder, settings = artifacts.EXPORT, read_params()[0].export
    before = artifacts.sha256_of(folder)
    for name in ("export_text", "export_image"):
        made = "textual" if name == "export_text" else "visual"
        path = tmp_path / f"{made}.onnx"
        shutil.copy2(folder / "fp32" / made / "model.onnx", path)
        monkeypatch.setattr(f"assets.export.stage.{name}", lambda *given, path=path: shutil.copy2(path, given[-1]))
    with monkeypatch.context() as patched:
        patched.setattr("assets.clip.onnx_towers.pixels_of", lambda *_: np.zeros((3, 32, 32), np.float32))
        with pytest.raises(UserError, match=r"the picture graph of .* gives other vectors .*export\.min_cosine"):
            export(settings, RECIPE)
    assert artifacts.sha256_of(folder) == before
    monkeypatch.setattr("assets.export.stage._too_much_lost", lambda *_: "of text queries recall@10 falls")
    saved = folder.rename(folder.with_name("kept"))
    try:
        export(settings, RECIPE)
        assert not (folder / "int8").exists()
        assert "withheld" in artifacts.read_json(folder / artifacts.EXPORT_CARD)["precisions"]["int8"]
        assert "are withheld" in caplog.text
        assert not list((folder / "transformers_js" / "onnx").glob("*quantized*"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        saved.rename(folder)


def test_recall_by_hand():
    corner = np.eye(12, dtype=np.float32)
    labels = np.array(list("aabbccddeeff"), object)
    sample = Sample(corner, labels, corner[:2], np.array(["a", "zz"], object))
    # all others are equally far: of eleven the ten first, so the last two pictures miss each other
    assert recall(corner, True, labels, sample) == pytest.approx(100 * 10 / 12)
    assert recall(corner[:2], False, sample.classes, sample) == 100  # «zz» has no picture and is not asked
    assert recall(corner[:1], False, np.array(["zz"], object), sample) is None
    assert lowest_cosine(corner, corner[::-1]) == 0
    assert lowest_cosine(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)) is None
    assert measured(corner, corner[:2], sample)["text_recall_lost"] == 0


def test_a_tokenizer_without_such_a_form_is_named(tmp_path):
    class Clean:
        def clean_fn(self, text):
            return text

    with pytest.raises(UserError, match="has no form without torch"):
        write_tokenizer(Clean(), tmp_path)


def test_plain_words_need_no_repair():
    """A search for plain words must not import ftfy, which takes longer than the search; what skips it must be what it leaves alone."""
    chance = np.random.default_rng(0)
    letters = np.array([chr(code) for code in range(32, 127) if chr(code) != "&"])
    for text in ["a red heart", " <b>bold</b> ", "it's  5%", *("".join(chance.choice(letters, 12)) for _ in range(2000))]:
        assert _fixed(text) == basic_clean(text)
    for text in ["tea &amp; cake", "&lt", "a\tb\r\n", "naïve", "sÃ©", "\x1b[1mred"]:
        assert _fixed(text) == basic_clean(text)
