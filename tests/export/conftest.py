"""Fixtures of export: a checkpoint whose outputs vary, its graphs, and toy graphs with outputs made up by a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

IMGSZ = 96  # pixels
NAMES = {0: "disc", 1: "square", 2: "triangle"}
KINDS = {"raw": {}, "nms-free": {"nms": False}, "nms-embedded": {"nms": True}}
METADATA = {
    "task": "detect",
    "names": "{0: 'disc', 1: 'square'}",
    "stride": "32",
    "imgsz": "[64, 64]",
    "head": "Detect",
    "end2end": "False",
    "args": "{'nms': None}",
}


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """The two photos of the ultralytics package, 810x1080 and 1280x720 px."""
    from ultralytics.utils import ASSETS

    return [ASSETS / "bus.jpg", ASSETS / "zidane.jpg"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> Path:
    """An untrained yolo26n whose scores and boxes spread as a trained one's do, so that comparing means something."""
    import torch
    from torch import nn
    from ultralytics import YOLO

    from ima_yolo.export.preprocess import Letterbox

    images = [cv2.imread(str(path)) for path in photos]
    crops = [crop for image in images for y in range(0, 600, 150) for crop in (image[y:], image[y : y + 150, ::2])]
    batch = np.concatenate([Letterbox.fit(crop.shape[:2], (IMGSZ, IMGSZ)).blob(crop) for crop in crops])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yolo = YOLO("yolo26n.yaml", verbose=False)
        model = type(yolo.model)(yolo.model.yaml, nc=len(NAMES), verbose=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.from_numpy(batch))
        for branch in (*model.model[-1].cv3, *model.model[-1].one2one_cv3):
            branch[-1].weight *= 2
            branch[-1].bias.fill_(-2.0)
    model.names, model.args, model.task = NAMES, yolo.model.args, "detect"
    yolo.model = model.eval()
    path = tmp_path_factory.mktemp("checkpoint") / "lively.pt"
    yolo.save(path)
    return path


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, Path]:
    """The checkpoint exported as each kind of graph by `export_onnx`, its comparison with torch included."""
    from ima_yolo.export import export_onnx

    folder = tmp_path_factory.mktemp("graphs")
    return {
        kind: export_onnx(checkpoint, folder / f"{kind}.onnx", imgsz=IMGSZ, **args).path for kind, args in KINDS.items()
    }


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Path]:
    """Factory of ONNX files that give `output` for every picture: `toy(output, imgsz="[64, 96]")`."""

    def make(output: np.ndarray, name: str = "toy.onnx", drop: str = "", **metadata: str) -> Path:
        entries = {key: value for key, value in {**METADATA, **metadata}.items() if key != drop}
        height, width = (int(side) for side in METADATA["imgsz"].strip("[]").split(","))
        nodes = [
            helper.make_node("Mul", ["images", "zero"], ["nothing"]),
            helper.make_node("ReduceSum", ["nothing"], ["sum"], keepdims=0),
            helper.make_node("Add", ["values", "sum"], ["output0"]),
        ]
        values = np.asarray(output, np.float32)
        graph = helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, height, width])],
            [helper.make_tensor_value_info("output0", TensorProto.FLOAT, values.shape)],
            [numpy_helper.from_array(np.float32(0), "zero"), numpy_helper.from_array(values, "values")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
        helper.set_model_props(model, entries)
        path = tmp_path / name
        onnx.save(model, str(path))
        return path

    return make
