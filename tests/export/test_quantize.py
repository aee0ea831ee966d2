"""Int8: which nodes, the search over layers, and a real file's accuracy before and after."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from ultralytics.utils import LOGGER

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.export import Detector, export_onnx
from ima_yolo.export.postprocess import Thresholds
from ima_yolo.export.quantize import QuantizeOptions, keep_in_float, quantize_onnx, rank_layers
from ima_yolo.export.quantize_graph import OP_TYPES, Plan, calibrate, quantized
from ima_yolo.export.session import open_session


@pytest.fixture
def blobs(photos: list[Path]) -> list[np.ndarray]:
    from lively import crops_of

    return [blob[None] for blob in crops_of(photos, 96)[:4]]


def test_only_nodes_before_a_convolution_are_quantized(graphs: dict[str, Path]) -> None:
    model = onnx.load(str(graphs["raw"]))
    plan = Plan.of(model)
    nodes, types = set(plan.nodes()), {node.name: node.op_type for node in model.graph.node}
    last = {name for name, kind in types.items() if kind == "Conv" and name not in nodes}
    assert len(last) == 6  # boxes and scores of three levels
    assert {types[name] for name in nodes} <= set(OP_TYPES)
    assert "/model.23/Sigmoid" in types
    assert "/model.23/Sigmoid" not in nodes  # the scores
    assert sum(types[name] == "Conv" for name in nodes) > 80
    first = next(iter(plan.layers))
    assert set(plan.nodes([first])) == nodes - set(plan.layers[first])


def test_layers_are_as_fine_with_nms_in_the_graph(graphs: dict[str, Path]) -> None:
    raw, embedded = (Plan.of(onnx.load(str(graphs[kind]))) for kind in ("raw", "nms-embedded"))
    assert len(raw.layers) > 70
    assert list(embedded.layers) == list(raw.layers)


@pytest.mark.parametrize(
    ("losses", "kept", "loss"),
    [
        ({0: 0.001}, 0, 0.001),
        ({0: 0.1, 1: 0.002}, 1, 0.002),
        ({0: 0.1, 1: 0.1, 2: 0.1, 4: 0.004}, 4, 0.004),
        ({0: 0.1, 1: 0.1, 2: 0.1, 4: 0.1, 5: 0.0}, 5, 0.0),  # all but one of six
    ],
)
def test_layers_go_back_to_float_until_the_loss_is_kept(losses: dict[int, float], kept: int, loss: float) -> None:
    def loss_of(layers: Sequence[str]) -> float:
        assert list(layers) == ["a", "b", "c", "d", "e", "f"][: len(layers)]
        return losses[len(layers)]

    assert keep_in_float(loss_of, lambda: list("abcdef"), 0.005, 6) == (list("abcdef")[:kept], loss)


def test_a_loss_that_cannot_be_kept_is_told() -> None:
    with pytest.raises(IMAError, match=r"all layers but one in float the loss is 0\.1000, max_loss=0\.005"):
        keep_in_float(lambda layers: 0.1, lambda: list("abc"), 0.005, 3)


def test_the_most_sensitive_layer_comes_first(graphs: dict[str, Path], blobs: list[np.ndarray]) -> None:
    plan = Plan.of(onnx.load(str(graphs["raw"])))
    small = Plan({layer: plan.layers[layer] for layer in list(plan.layers)[:3]})
    ranges = calibrate(graphs["raw"], blobs, "minmax", small.nodes(), 0)
    worst = list(small.layers)[1]

    def build(in_float: Sequence[str]) -> onnx.ModelProto:
        proto = quantized(graphs["raw"], ranges, small.nodes(in_float))
        if worst not in in_float:  # wreck this layer's scales
            for tensor in proto.graph.initializer:
                if tensor.name.endswith("_scale") and (worst in tensor.name or worst.replace("/", ".") in tensor.name):
                    values = onnx.numpy_helper.to_array(tensor) * np.float32(3)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return proto

    assert rank_layers(graphs["raw"], build, small, blobs)[0] == worst


def test_weights_have_a_scale_for_each_channel(graphs: dict[str, Path], blobs: list[np.ndarray]) -> None:
    plan = Plan.of(onnx.load(str(graphs["raw"])))
    nodes = Plan({layer: plan.layers[layer] for layer in list(plan.layers)[:3]}).nodes()
    graph = quantized(graphs["raw"], calibrate(graphs["raw"], blobs, "minmax", nodes, 0), nodes).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = [
        n for n in graph.node if n.op_type == "DequantizeLinear" and stored.get(n.input[0], np.empty(0)).ndim == 4
    ]
    assert len(readers) == 2
    for reader in readers:
        weight, scale = stored[reader.input[0]], stored[reader.input[1]]
        assert weight.dtype == np.int8
        assert scale.shape == (len(weight),)
        assert [attribute.i for attribute in reader.attribute if attribute.name == "axis"] == [0]


@pytest.mark.parametrize(
    ("method", "percentile", "least", "most"),
    [
        ("minmax", 0, 0.999999, 1),
        ("percentile", 100, 0.99, 1.01),
        ("percentile", 90, 0.1, 0.9),
        ("entropy", 0, 0.3, 1.01),
    ],
)
def test_ranges_are_those_of_the_pictures(
    method: str, percentile: float, least: float, most: float, graphs: dict[str, Path], blobs: list[np.ndarray]
) -> None:
    model = onnx.load(str(graphs["raw"]))
    plan = Plan.of(model)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    ranges = calibrate(graphs["raw"], blobs, method, plan.nodes(), percentile)
    low, high = (np.asarray(value).item() for value in ranges[first.output[0]].range_value)
    model.graph.output.append(onnx.ValueInfoProto(name=first.output[0]))
    session = open_session(model.SerializeToString())
    values = np.concatenate([session.run([first.output[0]], {"images": blob})[0] for blob in blobs])
    assert least <= (high - low) / float(np.ptp(values)) <= most + 1e-6


def test_a_trained_file_keeps_its_accuracy(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, source = shared / "weights" / "bccd_yolo26s.pt", shared / "data" / "bccd"
    if not weights.exists() or not source.is_dir():
        pytest.skip(f"no {weights} or no bccd images")
    data = tmp_path / "data"
    for kind in ("images", "labels"):
        for part, count in (("train", 12), ("val", 8)):
            (data / kind / part).mkdir(parents=True)
            for file in sorted((source / kind / part).iterdir())[:count]:
                (data / kind / part / file.name).write_bytes(file.read_bytes())
    (data / "data.yaml").write_text((source / "data.yaml").read_text())
    words = [f"data={data / 'data.yaml'}", "imgsz=224", f"images={data / 'images' / 'val'}", "calibration_images=8"]
    target = tmp_path / "cells_int8.onnx"
    code = main(["export", f"model={weights}", "quantize=8", "max_loss=0.03", f"output={target}", *words])
    assert code == 0, capsys.readouterr().err
    report = json.loads(target.with_suffix(".json").read_text())
    assert report["before"]["accuracy"] > 0.4
    assert report["before"]["accuracy"] - report["after"]["accuracy"] <= 0.03
    assert report["after"]["size"] < report["before"]["size"] / 3
    assert all(0 < report[when]["latency"] < 1000 for when in ("before", "after")), "milliseconds"
    detector = Detector(target)
    assert detector.metadata.args["quantize"] == 8
    assert len(detector(cv2.imread(str(next((data / "images" / "val").glob("*.jpg")))))) > 3
    assert not list(tmp_path.glob(".ima*"))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_dynamic_file_takes_other_sizes_and_batches_in_fewer_bits(
    precision: str, tiny_checkpoint: Callable[..., Path], tiny_data: Path, photos: list[Path], tmp_path: Path
) -> None:
    checkpoint, bits = tiny_checkpoint(), {"quantize": 16} if precision == "fp16" else {}
    path = export_onnx(checkpoint, tmp_path / "x.onnx", imgsz=96, dynamic=True, **bits).path
    if precision == "int8":
        options = QuantizeOptions(str(tiny_data), calibration="minmax", calibration_images=2, max_loss=1)
        path = quantize_onnx(path, tmp_path / "x_int8.onnx", options).path
    images, plain = [cv2.imread(str(photo)) for photo in photos], export_onnx(checkpoint, tmp_path / "p.onnx", imgsz=64)
    detector, reference = Detector(path, imgsz=64), Detector(plain.path)
    blob, _ = detector.prepare(images)
    assert blob.shape == (2, 3, 64, 64)
    (found,), (expected,) = detector.infer(blob), [np.concatenate([reference.infer(part[None])[0] for part in blob])]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < np.ptp(expected) * 0.05
    assert len(detector.detect(images, Thresholds(conf=0.0, max_det=5))) == 2


def test_a_dynamic_file_made_for_several_pictures_is_quantized(
    tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = export_onnx(tiny_checkpoint(), tmp_path / "x.onnx", imgsz=64, dynamic=True, batch=4).path
    options = QuantizeOptions(str(tiny_data), calibration="minmax", calibration_images=2, max_loss=1)
    with attached(caplog):
        made = quantize_onnx(path, tmp_path / "x_int8.onnx", options).path
    assert len(Detector(made).detect([np.zeros((64, 64, 3), np.uint8)] * 3, Thresholds())) == 3
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.search(
        r"The float file's mAP50-95\(B\) is 0\.\d{4}, no larger than max_loss=1: a loss within it proves nothing$", told
    )


@contextmanager
def attached(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Hear Ultralytics' log, which it does not pass on."""
    LOGGER.addHandler(caplog.handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(caplog.handler)


def test_data_of_other_classes_are_refused(graphs: dict[str, Path], tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.yaml"
    data.write_text(tiny_data.read_text() + "  3: ring\n")
    with pytest.raises(IMAError, match=r"^data=.*data\.yaml: has 4 classes, the model has 3$"):
        quantize_onnx(graphs["raw"], tmp_path / "x_int8.onnx", QuantizeOptions(str(data)))
    assert not (tmp_path / "x_int8.onnx").exists()


@pytest.mark.parametrize(
    ("classes", "message"), [(3, "has 4 classes, the model has 3"), (4, "has no convolutions to quantize")]
)
def test_outlines_have_a_background_beside_their_classes(
    classes: int, message: str, toy: Callable[..., Path], task_data: Callable[[str], Path], tmp_path: Path
) -> None:
    names = {number: str(number) for number in range(classes)}
    model = toy(np.zeros((1, 64, 64)), task="semantic", names=str(names))
    with pytest.raises(IMAError, match=message):
        quantize_onnx(model, tmp_path / "x_int8.onnx", QuantizeOptions(str(task_data("segment"))))


def test_labels_of_another_form_are_one_line(
    lively: Callable[[str], Path], tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = lively("yolo26n-seg")
    assert main(["export", f"model={model}", "quantize=8", f"data={tiny_data}", "imgsz=64", "output=x.onnx"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("ima-yolo: ")
    assert "segment" in told.lower()
    assert not Path("x.onnx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quantize=8", "data=nowhere.yaml"], "ima-yolo: data=nowhere.yaml: "),
        (["quantize=8", "data={data}", "half=True"], "half=True with quantize=8: expected one of them"),
        (["int8=True", "data={data}", "quantize=16"], "int8=True with quantize=16: expected one of them"),
        (["int8=True", "data={data}", "quantize=32"], "int8=True with quantize=32: expected one of them"),
    ],
)
def test_what_int8_cannot_do_is_told_before_an_export(
    words: list[str],
    message: str,
    tiny_checkpoint: Callable[..., Path],
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def export(*_: object, **__: object) -> None:
        pytest.fail("the export began")

    monkeypatch.setattr("ima_yolo.export.onnx.export_onnx", export)
    given = [word.format(data=tiny_data) for word in words]
    assert main(["export", f"model={tiny_checkpoint()}", "imgsz=64", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert tempfile.gettempdir() not in line.replace(str(tiny_data), "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ""}, "^quantize=8 needs data="),
        ({"calibration": "median"}, "^calibration=median: expected one of percentile, entropy, minmax"),
        ({"percentile": 101}, "^percentile=101"),
        ({"calibration_images": 0}, "^calibration_images=0"),
        ({"max_loss": -1}, "^max_loss=-1"),
    ],
)
def test_options_out_of_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(IMAError, match=message):
        QuantizeOptions(**{"data": "x.yaml", **changes})


def test_what_cannot_be_quantized(
    graphs: dict[str, Path],
    checkpoint: Path,
    toy: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "x_int8.onnx"
    with pytest.raises(IMAError, match=r"^data=nowhere\.yaml: "):
        quantize_onnx(graphs["raw"], target, QuantizeOptions("nowhere.yaml"))
    half = toy(np.zeros((1, 6, 2)), args="{'quantize': 16}")
    with pytest.raises(IMAError, match="expected a float32 file"):
        quantize_onnx(half, target, QuantizeOptions("nowhere.yaml"))
    for words, message in (
        ([f"model={graphs['raw']}"], "is exported already"),
        ([f"model={graphs['raw']}", "quantize=8", "data=x.yaml", "imgsz=64"], "imgsz= belongs to the export of a .pt"),
        ([f"model={graphs['raw']}", "calibration=entropy"], "calibration= belongs to quantize=8"),
        ([f"model={graphs['raw']}", "quantize=8"], "quantize=8 needs data="),
        ([f"model={checkpoint}", "quantize=8", "data=x.yaml", "batch=2"], "batch=2 with quantize=8: expected 1, or"),
    ):
        assert main(["export", *words]) == 2
        assert message in capsys.readouterr().err
    assert not target.exists()
