"""Fixtures of export: a checkpoint whose outputs vary, its graphs, and toy graphs with outputs made up by a test."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

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
def lively(tmp_path_factory: pytest.TempPathFactory, photos: list[Path]) -> Callable[[str], Path]:
    """Factory of untrained checkpoints whose outputs vary: `lively("yolo26n-seg")`, `lively("rtdetr")`."""
    folder = tmp_path_factory.mktemp("lively")

    def make(name: str) -> Path:
        from lively import crops_of, lively_checkpoint

        path = folder / name / "lively.pt"
        if not path.exists():
            path.parent.mkdir()
            lively_checkpoint(path, name, NAMES, crops_of(photos, IMGSZ))
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


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, lively: Callable[[str], Path]) -> Callable[..., Path]:
    """Factory of ONNX files, each exported once: `written("yolo26n-seg", nms=False)`."""
    from ima_yolo.export import export_onnx

    folder, made = tmp_path_factory.mktemp("written"), {}

    def make(name: str, **args: object) -> Path:
        case = (name, *args.items())
        if case not in made:
            made[case] = export_onnx(lively(name), folder / f"{len(made)}.onnx", imgsz=IMGSZ, **args).path
        return made[case]

    return make


@pytest.fixture(scope="session")
def opens_quietly() -> bool:
    """Whether this ONNX Runtime can be kept from printing about a file that it cannot open."""
    import onnxruntime as ort

    return "enable_fallback" in inspect.getsource(ort.InferenceSession.__init__)


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
