"""Fixtures of export: a checkpoint whose outputs vary, its graphs, and toy graphs with outputs made up by a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


SMALL_RTDETR = {
    "nc": len(NAMES),
    "backbone": [[-1, 1, "Conv", [c, 3, 2]] for c in (16, 32, 32, 64, 64)],
    "head": [[[2, 3, 4], 1, "RTDETRDecoder", ["nc", 32, 40, 4, 4, 2]]],
}
"""An RT-DETR of five convolutions, 32 channels and 40 queries; strides 8, 16, 32."""


def crops_of(photos: list[Path]) -> np.ndarray:
    """A batch of parts of the photos at the network's size, (B, 3, 96, 96)."""
    from ima_yolo.export.preprocess import Letterbox

    images = [cv2.imread(str(path)) for path in photos]
    crops = [crop for image in images for y in range(0, 600, 150) for crop in (image[y:], image[y : y + 150, ::2])]
    return np.concatenate([Letterbox.fit(crop.shape[:2], (IMGSZ, IMGSZ)).blob(crop) for crop in crops])


def enliven(model: Any, batch: np.ndarray) -> None:
    """Give an untrained model the batch statistics of real pictures, and scores that spread as a trained one's do."""
    import torch
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    head = model.model[-1]
    with torch.no_grad():
        model.train()
        model.predict(torch.from_numpy(batch))
        for branch in (*getattr(head, "cv3", ()), *(getattr(head, "one2one_cv3", None) or ())):
            branch[-1].weight *= 2
            branch[-1].bias.fill_(-2.0)
        for scores in getattr(head, "dec_score_head", ()):
            scores.weight *= 20
            scores.bias.fill_(-1.0)


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> Callable[[str], Path]:
    """Factory of untrained checkpoints whose outputs vary: `lively("yolo26n-seg")`, `lively("rtdetr")`."""
    folder = tmp_path_factory.mktemp("lively")

    def make(name: str) -> Path:
        import torch
        import yaml
        from ultralytics import RTDETR, YOLO

        path = folder / name / "lively.pt"
        if path.exists():
            return path
        path.parent.mkdir()
        config = path.parent / "rtdetr-small.yaml"
        config.write_text(yaml.safe_dump(SMALL_RTDETR))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yolo = RTDETR(config) if name == "rtdetr" else YOLO(f"{name}.yaml", verbose=False)
            model = type(yolo.model)(yolo.model.yaml, nc=len(NAMES), verbose=False)
        enliven(model, crops_of(photos))
        model.names, model.args, model.task = NAMES, yolo.model.args, yolo.task
        yolo.model = model.eval()
        yolo.save(path)
        config.unlink()
        return path

    return make


@pytest.fixture(scope="session")
def checkpoint(lively: Callable[[str], Path]) -> Path:
    """An untrained yolo26n whose scores and boxes spread as a trained one's do, so that comparing means something."""
    return lively("yolo26n")


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
