"""8-bit copies of the graphs, by onnxruntime: what an integer unit of a CPU computes, at a quarter of the size."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

FIRST = 8  # convolutions that stay as they are: of few weights, and those by which 8 bits lose most
AT_ONCE = 16  # pictures in one run of the calibration


def quantise(graph: Path, target: Path, samples: np.ndarray | None) -> None:
    """Matrix products alone, with scales found in each run; a graph of convolutions with scales found on `samples` [N, 3, S, S]."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
        if len(convolutions) > 1 and samples is not None:
            (name,) = [each.name for each in model.graph.input]
            quantize_static(
                prepared,
                target,
                _Samples(name, samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=convolutions[:FIRST],
            )
        else:
            quantize_dynamic(
                prepared, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "Gather"]
            )


class _Samples(CalibrationDataReader):
    def __init__(self, name: str, samples: np.ndarray) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter(
            [{name: samples[start : start + AT_ONCE]} for start in range(0, len(samples), AT_ONCE)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)
