"""The detector: toy graphs by hand, real graphs against Ultralytics' predictor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.export import Detections, Detector
from ima_yolo.export.postprocess import Thresholds

# One anchor a column: cx, cy, w, h, score of class 0, score of class 1.
RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9], [16, 16, 8, 8, 0.2, 0.1]]]).transpose(0, 2, 1)
PICTURE = np.zeros((100, 200, 3), np.uint8)  # into 64x64: factor 0.32, 16 rows above


def assert_equal_to_ultralytics(path: Path, images: list[np.ndarray], **thresholds: object) -> int:
    """Compare with Ultralytics' predictor on the same file; gives the number of detections."""
    from ultralytics import YOLO

    theirs, ours, count = YOLO(path, task="detect"), Detector(path), 0
    for image in images:
        expected = theirs(image, verbose=False, **thresholds)[0].boxes.cpu().numpy()
        found = ours(image, **thresholds)
        assert len(found) == len(expected)
        np.testing.assert_array_equal(found.classes, expected.cls)
        np.testing.assert_allclose(found.scores, expected.conf, rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.boxes, expected.xyxy, rtol=0, atol=1)
        count += len(found)
    return count


def test_a_raw_graph_by_hand(toy: Callable[..., Path]) -> None:
    found = Detector(toy(RAW))(PICTURE)
    # xyxy in the network is 16, 24, 48, 40; less 16 rows and over 0.32.
    np.testing.assert_allclose(found.boxes, [[50, 25, 150, 75]], rtol=1e-6)
    assert (found.scores.dtype, found.boxes.dtype) == (np.float32, np.float32)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert (found.classes.tolist(), found.names, found.shape) == ([1], {0: "disc", 1: "square"}, (100, 200))


@pytest.mark.parametrize("metadata", [{"end2end": "True"}, {"args": "{'nms': True}"}])
def test_a_topk_graph_by_hand(toy: Callable[..., Path], metadata: dict[str, str]) -> None:
    rows = [[[16, 24, 48, 40, 0.9, 1], [0, 16, 64, 48, 0.5, 0], [0, 0, 0, 0, 0, 0]]]
    found = Detector(toy(np.array(rows), **metadata))(PICTURE)
    np.testing.assert_allclose(found.boxes, [[50, 25, 150, 75], [0, 0, 200, 100]], rtol=1e-6)
    assert found.classes.tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["raw", "nms-free", "nms-embedded"])
@pytest.mark.parametrize(
    "thresholds",
    [{}, {"conf": 0.4, "iou": 0.5}, {"agnostic_nms": True, "max_det": 7}, {"classes": [0, 2], "conf": 0.3}],
)
def test_equals_ultralytics_on_photos(
    kind: str, thresholds: dict[str, object], graphs: dict[str, Path], photos: list[Path]
) -> None:
    images = [cv2.imread(str(path)) for path in photos]
    assert assert_equal_to_ultralytics(graphs[kind], images, **thresholds) > 0


@pytest.mark.parametrize(
    "args", [{}, {"nms": False}, {"nms": True}, {"quantize": 16}], ids=["raw", "nms-free", "nms-embedded", "half"]
)
def test_equals_ultralytics_on_blood_cells(args: dict[str, object], shared: Path, tmp_path: Path) -> None:
    from ima_yolo.export import export_onnx

    weights = shared / "weights" / "bccd_yolo26s.pt"
    files = sorted((shared / "data" / "bccd" / "images" / "val").glob("*.jpg"))[:6]
    if not weights.exists() or not files:
        pytest.skip(f"no {weights} or no bccd images")
    report = export_onnx(weights, tmp_path / "cells.onnx", files[:2], imgsz=224, **args)
    assert assert_equal_to_ultralytics(report.path, [cv2.imread(str(file)) for file in files]) > 60


def test_grey_alpha_and_16_bit_arrays_give_the_same(graphs: dict[str, Path], photos: list[Path]) -> None:
    detector = Detector(graphs["raw"])
    grey = cv2.imread(str(photos[0]), cv2.IMREAD_GRAYSCALE)
    expected = detector(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    assert len(expected)
    for array in (grey, grey[..., None], cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA), grey.astype(np.uint16) << 8):
        np.testing.assert_array_equal(detector(array).boxes, expected.boxes)


def test_threads_share_one_detector(graphs: dict[str, Path], photos: list[Path]) -> None:
    detector = Detector(graphs["raw"], threads=1, providers=["CPUExecutionProvider"])
    images = [cv2.imread(str(path)) for path in photos]
    alone = [detector(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together: list[Detections] = list(pool.map(detector, images * 8))
    for index, found in enumerate(together):
        np.testing.assert_array_equal(found.boxes, alone[index % 2].boxes)


def test_a_file_that_is_no_model(tmp_path: Path, graphs: dict[str, Path]) -> None:
    for content in (b"", b"no model", graphs["raw"].read_bytes()[:100_000]):
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(IMAError, match=r"^model=.*x\.onnx: not a loadable ONNX file") as caught:
            Detector(tmp_path / "x.onnx")
        assert "\n" not in str(caught.value)
    with pytest.raises(IMAError, match=r"^model=missing\.onnx: no such file$"):
        Detector("missing.onnx")


def test_a_damaged_file_leaves_the_output_to_the_results(
    tmp_path: Path, graphs: dict[str, Path], opens_quietly: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    if not opens_quietly:
        pytest.skip("this ONNX Runtime announces its second attempt in any case")
    content = graphs["raw"].read_bytes()
    for number, damaged in enumerate((content[:100_000], content[:-2000], content.replace(b"Conv", b"Cnov"))):
        (tmp_path / f"{number}.onnx").write_bytes(damaged)
        with pytest.raises(IMAError, match=rf"^model=.*{number}\.onnx: not a loadable ONNX file"):
            Detector(tmp_path / f"{number}.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "providers",
    ["CPUExecutionProvider", ("CPUExecutionProvider",), [("CPUExecutionProvider", {})]],
)
def test_a_provider_may_be_a_name_or_a_pair(providers: object, toy: Callable[..., Path]) -> None:
    detector = Detector(toy(RAW), providers=providers)
    assert detector.session.get_providers() == ["CPUExecutionProvider"]
    assert len(detector(PICTURE)) == 1


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"drop": "task"}, "no Ultralytics metadata"),
        ({"drop": "names"}, "names missing"),
        ({"task": "classify"}, "'classify' is not supported, supported tasks: detect, segment, pose, obb, semantic"),
        ({"task": "depth"}, "'depth' is not supported"),
        ({"task": "segment"}, "has 1 outputs, a segment model has 2"),
        ({"task": "pose"}, "kpt_shape is missing"),
        ({"task": "pose", "kpt_shape": "[2, 3]"}, r"asks for \[None, 12, None\]"),
        ({"task": "obb"}, r"asks for \[None, 7, None\]"),
        ({"task": "semantic"}, r"asks for \[None, 64, 64\]"),
        ({"head": "RTDETRDecoder"}, r"asks for \[None, None, 6\]"),
        ({"imgsz": "[96, 64]"}, r"input has shape \[1, 3, 64, 64\], its metadata asks for \[None, 3, 96, 64\]"),
        ({"names": "{0: 'disc'}"}, r"output has shape \[1, 6, 2\], its metadata asks for \[None, 5, None\]"),
        ({"end2end": "True"}, r"output has shape \[1, 6, 2\]"),
        ({"channels": "1"}, r"input has shape \[1, 3, 64, 64\], its metadata asks for \[None, 1, 64, 64\]"),
    ],
)
def test_files_that_it_cannot_read(toy: Callable[..., Path], metadata: dict[str, str], message: str) -> None:
    with pytest.raises(IMAError, match=message):
        Detector(toy(RAW, **metadata))


def test_a_graph_with_half_precision_input(toy: Callable[..., Path]) -> None:
    path = toy(RAW)
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model.graph.node[0].input[0] = "wide"
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["images"], ["wide"], to=onnx.TensorProto.FLOAT))
    onnx.save(model, str(path))
    assert Detector(path)(PICTURE).scores.tolist() == pytest.approx([0.9])


def test_settings_out_of_range(toy: Callable[..., Path]) -> None:
    path = toy(RAW)
    with pytest.raises(IMAError, match=r"^threads=0"):
        Detector(path, threads=0)
    with pytest.raises(IMAError, match=r"^threads=9999: expected a whole number from 1 to 1024"):
        Detector(path, threads=9999)
    for providers in ("NoSuch", ["NoSuch"], [("NoSuch", {}), "CPUExecutionProvider"]):
        with pytest.raises(IMAError, match=r"^providers=\['NoSuch'\].*CPUExecutionProvider"):
            Detector(path, providers=providers)
    with pytest.raises(IMAError, match=r"^conf=2"):
        Detector(path)(PICTURE, conf=2)
    with pytest.raises(IMAError, match=r"^classes=\[2\]: .*0 to 1"):
        Detector(path)(PICTURE, classes=[0, 2])
    assert Detector(path, imgsz=np.int64(64)).imgsz == (64, 64)
    with pytest.raises(IMAError, match=r"^imgsz=96: .* fixed to \[64, 64\]"):
        Detector(path, imgsz=96)
    with pytest.raises(IMAError, match=r"^imgsz=50: expected a multiple of 32"):
        Detector(path, imgsz=50)
    with pytest.raises(IMAError, match=r"^imgsz=64\.0: expected a multiple of 32"):
        Detector(path, imgsz=64.0)
    with pytest.raises(IMAError, match=r"^image "):
        Detector(path)(PICTURE.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("row", "task"), [(0, "detect"), (6, "obb")])
def test_numbers_that_are_none_are_one_line(
    row: int, task: str, value: float, toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    output = np.array([[[32, 32, 32, 16, 0.1, 0.9, 0.0]]]).transpose(0, 2, 1)[:, : 7 if task == "obb" else 6]
    output[0, row, 0] = value
    path = toy(output, task=task)
    cv2.imwrite("a.png", np.zeros((50, 80, 3), np.uint8))
    assert main(["predict", f"model={path}", "source=a.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("toy.onnx: gave a detection with NaN or infinite numbers; export it again, in float32")


def test_one_picture_in_place_of_a_list_is_refused(toy: Callable[..., Path]) -> None:
    detector, image = Detector(toy(np.zeros((1, 6, 2)))), np.zeros((50, 80, 3), np.uint8)
    with pytest.raises(IMAError, match=r"^images has shape \(50, 80, 3\), expected a list of pictures"):
        detector.detect(image, Thresholds())
    assert len(detector.detect(image[None], Thresholds())) == 1
    several = detector.detect([image, image])
    assert [one.scores.tolist() for one in several] == [detector(image).scores.tolist()] * 2, "as a call is by default"


def test_a_graph_that_fails_when_run(toy: Callable[..., Path]) -> None:
    path = toy(RAW)
    model = onnx.load(str(path))
    model.graph.node[2].op_type = "Gather"  # of index 0, which is a float here
    node = onnx.helper.make_node("Cast", ["sum"], ["index"], to=onnx.TensorProto.INT64)
    far = onnx.numpy_helper.from_array(np.int64(7), "far")
    model.graph.initializer.append(far)
    del model.graph.node[2]
    model.graph.node.extend(
        [
            node,
            onnx.helper.make_node("Add", ["index", "far"], ["beyond"]),
            onnx.helper.make_node("Gather", ["values", "beyond"], ["picked"]),
            onnx.helper.make_node("Add", ["values", "picked"], ["output0"]),
        ]
    )
    onnx.save(model, str(path))
    with pytest.raises(IMAError, match="could not run it"):
        Detector(path)(PICTURE)
