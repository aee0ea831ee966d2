"""A float graph becomes an int8 graph: which nodes, which ranges, and the graph itself."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

OP_TYPES = ("Conv", "Sigmoid", "Mul", "Add", "Concat", "MaxPool", "Resize", "Split")
"""With the activations and what joins the convolutions quantized too, a whole block runs in int8; convolutions alone
spend what they gain on conversions between them (seen on yolo26n at 320 px: no gain at all, against 1.9 times)."""

METHODS = {
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    "minmax": CalibrationMethod.MinMax,
}


@dataclass(frozen=True)
class Plan:
    """Which nodes may be quantized, by layer.

    Attributes:
        layers: Layer name to the names of its nodes, in the order of the graph.
    """

    layers: dict[str, list[str]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Plan:
        """Take the nodes on which a convolution depends.

        What comes after the last convolutions decodes boxes and scores: one scale for pixels up to 640 and scores up to
        1 would round every score to 0. The last convolutions themselves are a few 1x1 ones and stay in float as well.
        """
        wanted, layers = _before_a_convolution(model.graph), defaultdict(list)
        for node in model.graph.node:
            if node.op_type in OP_TYPES and node.name in wanted:
                layers[_layer_of(node.name)].append(node.name)
        return cls(dict(layers))

    def nodes(self, kept_in_float: Collection[str] = ()) -> list[str]:
        """All nodes but those of some layers."""
        return [name for layer, names in self.layers.items() if layer not in kept_in_float for name in names]


def _before_a_convolution(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes from which a convolution can be reached."""
    maker = {output: node for node in graph.node for output in node.output}
    open_nodes = [maker[name] for node in graph.node if node.op_type == "Conv" for name in node.input if name in maker]
    found: set[str] = set()
    while open_nodes:
        node = open_nodes.pop()
        if node.name not in found:
            found.add(node.name)
            open_nodes += [maker[name] for name in node.input if name in maker]
    return found


def _layer_of(name: str) -> str:
    """Ultralytics names nodes by module, "/model.4/cv1/conv/Conv": the module, and the branch inside it.

    With NMS in the graph the whole model is one module more, "/model/model.4/...".
    """
    return "/".join(name.strip("/").removeprefix("model/").split("/")[:2])


def calibrate(
    model: Path, inputs: Iterable[np.ndarray], method: str, nodes: Collection[str], percentile: float
) -> TensorsData:
    """Run the float graph on pictures and find the range of each tensor.

    Args:
        model: The float file.
        inputs: Network inputs, (1, C, H, W) float32 each.
        method: A key of `METHODS`.
        nodes: Nodes that will be quantized.
        percentile: With "percentile": share of the values inside the range, in percent.
    """
    proto = onnx.load(str(model))
    types = sorted({node.op_type for node in proto.graph.node if node.name in nodes})
    options: dict[str, Any] = {"symmetric": False}
    if method == "percentile":
        options["percentile"] = percentile
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # it prints lines for each picture
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(model, types, augmented, METHODS[method], extra_options=options)
        for blob in inputs:  # one at a time: it keeps every tensor of what it is given
            calibrator.collect_data(_Reader({proto.graph.input[0].name: blob}))
        return calibrator.compute_data()


class _Reader(CalibrationDataReader):
    """A reader of one input."""

    def __init__(self, feed: dict[str, np.ndarray]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([feed])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantized(model: Path, ranges: TensorsData, nodes: Collection[str]) -> onnx.ModelProto:
    """Build the int8 graph: weights per channel in int8, activations in uint8, pairs of (de)quantizing nodes.

    Args:
        model: The float file.
        ranges: Of `calibrate`.
        nodes: Names of the nodes to quantize; at least one.
    """
    proto = onnx.shape_inference.infer_shapes(onnx.load(str(model)))
    quantizer = QDQQuantizer(
        proto, True, False, QuantType.QInt8, QuantType.QUInt8, ranges, list(nodes), [], list(OP_TYPES), {}
    )
    quantizer.quantize_model()
    return quantizer.model.model
