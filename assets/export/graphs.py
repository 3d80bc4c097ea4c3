"""The two towers as ONNX graphs that end in unit-norm vectors, by torch's own exporter; and the names that transformers.js reads them by.

A text's attention mask is made inside its graph, from the padding. Shapes: B batch, L tokens, S side in pixels, d embedding.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch.nn.functional import normalize

from assets.clip.model import Clip
from assets.clip.text_towers import HuggingFace, text_tower_of

ONE_FILE = 1_900_000_000  # bytes; protobuf holds 2 GiB, so weights of a larger tower lie beside its graph
OUTPUT = "unit_vector"  # a name that no module has
OPSET = 18


class _TextTower(torch.nn.Module):
    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return normalize(self.clip.encode_text(text.long()), dim=-1)


class _ImageTower(torch.nn.Module):
    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return normalize(self.clip.encode_image(image), dim=-1)


def export_text(model: Clip, context: int, pad: int, path: Path) -> None:
    """int32 `text` [B, L] → float32 [B, d]. L is free where padding is masked, else it is the context length."""
    masked = isinstance(text_tower_of(model), HuggingFace)
    tokens = torch.full((2, min(context, 12) if masked else context), pad, dtype=torch.int32)
    tokens[:, :3] = torch.tensor([[1, 2, 3], [3, 2, 1]], dtype=torch.int32)
    free = {0: torch.export.Dim("batch")} | ({1: torch.export.Dim("length", max=context)} if masked else {})
    _export(_TextTower(model), tokens, "text", free, path)


def export_image(model: Clip, size: tuple[int, int], path: Path) -> None:
    """float32 `image` [B, 3, S, S] → float32 [B, d]."""
    model.visual.to(memory_format=torch.contiguous_format)
    _export(_ImageTower(model), torch.zeros(2, 3, *size), "image", {0: torch.export.Dim("batch")}, path)


def _export(tower: torch.nn.Module, example: torch.Tensor, name: str, free: dict[int, Any], path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    size = sum(parameter.numel() * parameter.element_size() for parameter in tower.parameters())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, about its own code
        program = torch.onnx.export(
            tower.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[name],
            output_names=[OUTPUT],
            dynamic_shapes={name: free},
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=size > ONE_FILE)


def renamed_for_transformers_js(graph: Path, target: Path, tower: str) -> None:
    """The same graph with the names of Hugging Face's CLIP: input_ids (int64) → text_embeds, pixel_values → image_embeds."""
    model = onnx.load(graph)
    own, given, made = {"text": ("text", "input_ids", "text_embeds"), "image": ("image", "pixel_values", "image_embeds")}[tower]
    (entry,) = [each for each in model.graph.input if each.name == own]
    entry.name = given
    kind = entry.type.tensor_type
    begin = helper.make_node("Identity", [given], [own])
    if tower == "text":
        kind.elem_type = TensorProto.INT64
        begin = helper.make_node("Cast", [given], [own], to=TensorProto.INT32)
    (out,) = model.graph.output
    end = helper.make_node("Identity", [out.name], [made])
    out.name = made
    model.graph.node.insert(0, begin)
    model.graph.node.append(end)
    onnx.save(model, target, save_as_external_data=model.ByteSize() > ONE_FILE)
