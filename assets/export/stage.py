"""The stage: write the published recipe's towers as ONNX graphs, fp32 and int8, each measured against the model itself.

fp32 that disagrees fails the stage; int8 that loses too much is withheld, and data/export/export.json says so.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from open_clip import get_model_preprocess_cfg
from open_clip.tokenizer import HFTokenizer

from assets import artifacts, params
from assets.clip.encoder import Encoder
from assets.clip.kept_graphs import keep_graphs
from assets.clip.model import CONFIG as MODEL_CONFIG
from assets.clip.onnx_towers import (
    CONFIG,
    GRAPH,
    PREPROCESSING,
    TEXTUAL,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VISUAL,
    OnnxTowers,
    check_supported,
    pixels_of,
)
from assets.errors import UserError
from assets.export.agreement import Sample, measured
from assets.export.graphs import export_image, export_text, renamed_for_transformers_js
from assets.export.quantisation import quantise
from assets.export.tokenizer import write_tokenizer
from assets.pictures.decoding import decode
from assets.pictures.table import read_images_of, read_rows

logger = logging.getLogger(__name__)

FP32, INT8 = "fp32", "int8"
(TRANSFORMERS_JS,) = artifacts.EXPORTED_FOR_OTHERS


def export(settings: params.Export, recipe: str) -> None:
    """Write data/export, and keep it for queries of the table. UserError where a tower has no graph, or its fp32 graph is not the model."""
    directory = artifacts.model_dir(recipe)
    encoder = Encoder(directory, device="cpu", precision="fp32")
    preprocessing = {**get_model_preprocess_cfg(encoder.model), "fill_color": 0}
    check_supported(preprocessing)
    opened, labels, names = _sampled(settings.sample)
    sample = Sample(encoder.images_now(_Opened(opened)), labels, encoder.texts_now(list(names.values())), np.array(list(names), object))
    spread = opened[:: -(-len(opened) // settings.calibration_pictures) or 1]
    calibration = [pixels_of(picture, preprocessing) for picture in spread]
    with artifacts.replacing(artifacts.EXPORT) as root:
        fp32 = root / FP32
        _write_frame(fp32, encoder, directory, preprocessing)
        tokenizer: Any = encoder.tokenizer
        pad = tokenizer.tokenizer.pad_token_id if isinstance(tokenizer, HFTokenizer) else 0
        export_text(encoder.model, tokenizer.context_length, pad, fp32 / TEXTUAL / GRAPH)
        export_image(encoder.model, tuple(preprocessing["size"]), fp32 / VISUAL / GRAPH)
        found = {FP32: _measured(fp32, opened, list(names.values()), sample)}
        _refuse_other_vectors(found[FP32], settings.min_cosine, directory)
        int8 = root / INT8
        _write_frame(int8, encoder, directory, preprocessing)
        quantise(fp32 / TEXTUAL / GRAPH, int8 / TEXTUAL / GRAPH, None)
        quantise(fp32 / VISUAL / GRAPH, int8 / VISUAL / GRAPH, np.stack(calibration) if calibration else None)
        found[INT8] = _measured(int8, opened, list(names.values()), sample)
        if withheld := _too_much_lost(found[INT8], settings.max_recall_lost):
            found[INT8]["withheld"] = withheld
            logger.warning("the int8 graphs are withheld: %s", withheld)
            shutil.rmtree(int8)
        _write_for_transformers_js(root, encoder, preprocessing)
        model_sha256 = artifacts.sha256_of(directory)
        card = {"recipe": recipe, "model_sha256": model_sha256, "dimension": encoder.dimension, "sample": len(opened), "precisions": found}
        artifacts.write_json(root / artifacts.EXPORT_CARD, card)
    keep_graphs()
    logger.info("%s: fp32 %s", artifacts.EXPORT, "and int8" if "withheld" not in found[INT8] else "alone")


class _Opened:
    """Pictures that are open already, as an encoder takes them."""

    def __init__(self, pictures: list[Any]) -> None:
        self.pictures = pictures

    def digests(self) -> list[bytes]:
        return [picture.tobytes() for picture in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def items(self) -> list[Any]:
        return self.pictures

    def open(self, item: Any) -> Any:
        return item


def _sampled(most: int) -> tuple[list[Any], np.ndarray, dict[str, str]]:
    """(pictures, their labels, class names by label): whole classes of validation; of training where nothing validates."""
    for split in ("validation", "train", "library", "test"):
        rows = read_rows(artifacts.CURATED_IMAGES, split, columns=["id", "label", "class_name"]).to_pylist()
        if rows:
            break
    rows = sorted(rows, key=lambda row: (row["label"] or "", row["id"]))[:most]
    images = read_images_of(artifacts.CURATED_IMAGES, [row["id"] for row in rows])
    names = {row["label"]: row["class_name"] for row in rows if row["label"] is not None and row["class_name"]}
    labels = np.array([row["label"] if row["label"] is not None else row["id"] for row in rows], object)
    return [decode(images[row["id"]]) for row in rows], labels, names


def _write_frame(folder: Path, encoder: Encoder, directory: Path, preprocessing: dict[str, Any]) -> None:
    """All but the graphs, as Immich reads it."""
    for tower in (VISUAL, TEXTUAL):
        (folder / tower).mkdir(parents=True)
    config = json.loads((directory / MODEL_CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    artifacts.write_json(folder / CONFIG, config)
    artifacts.write_json(folder / VISUAL / PREPROCESSING, preprocessing)
    write_tokenizer(encoder.tokenizer, folder / TEXTUAL)


def _measured(folder: Path, opened: list[Any], names: list[str], sample: Sample) -> dict[str, Any]:
    towers = OnnxTowers(folder)
    size = {f"{tower}_bytes": sum(file.stat().st_size for file in (folder / tower).glob(f"{GRAPH}*")) for tower in (TEXTUAL, VISUAL)}
    return {**measured(towers.pictures(opened), towers.texts(names), sample), **size}


def _refuse_other_vectors(found: dict[str, Any], least: float, directory: Path) -> None:
    for tower in ("picture", "text"):
        cosine = found[f"{tower}_cosine"]
        if cosine is not None and not cosine >= least:
            raise UserError(
                f"the {tower} graph of {directory} gives other vectors than the model: a cosine of {cosine:.5f}, where export.min_cosine"
                f" asks for {least}. Nothing was written. Lower it only if search by such vectors is good enough for you."
            )


def _too_much_lost(found: dict[str, Any], most: float) -> str | None:
    for tower in ("picture", "text"):
        lost = found[f"{tower}_recall_lost"]
        if lost is not None and not lost <= most:
            return f"of {tower} queries recall@10 falls by {lost:.1f} points, more than export.max_recall_lost allows ({most})"
    return None


def _write_for_transformers_js(root: Path, encoder: Encoder, preprocessing: dict[str, Any]) -> None:
    folder = root / TRANSFORMERS_JS
    (folder / "onnx").mkdir(parents=True)
    for precision, suffix in ((FP32, ""), (INT8, "_quantized")):
        if (root / precision).is_dir():
            renamed_for_transformers_js(root / precision / TEXTUAL / GRAPH, folder / "onnx" / f"text_model{suffix}.onnx", "text")
            renamed_for_transformers_js(root / precision / VISUAL / GRAPH, folder / "onnx" / f"vision_model{suffix}.onnx", "image")
    for name in (TOKENIZER, TOKENIZER_CONFIG):
        shutil.copy2(root / FP32 / TEXTUAL / name, folder / name)
    height, width = preprocessing["size"]
    squash = preprocessing["resize_mode"] == "squash"
    artifacts.write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": height, "width": width} if squash else {"shortest_edge": min(height, width)},
            "resample": {"nearest": 0, "bilinear": 2, "bicubic": 3}[preprocessing["interpolation"]],
            "do_center_crop": not squash,
            "crop_size": {"height": height, "width": width},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(preprocessing["mean"]),
            "image_std": list(preprocessing["std"]),
        },
    )
    config = {"model_type": "clip", "projection_dim": encoder.dimension}
    parts = {"text_config": {"model_type": "clip_text_model"}, "vision_config": {"model_type": "clip_vision_model", "image_size": height}}
    artifacts.write_json(folder / "config.json", {**config, **parts})
