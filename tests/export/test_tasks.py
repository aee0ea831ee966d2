"""Every task and kind of graph against Ultralytics' predictor on the same file; masks, keypoints, angles included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export import Detector
from ima_yolo.export.metadata import GraphKind
from ima_yolo.export.postprocess import Thresholds
from ima_yolo.export.results import ClassMap

IMGSZ = 96
NMS_FREE, EMBEDDED = {"nms": False}, {"nms": True, "conf": 0.25}
CASES = {
    "segment raw": ("yolo26n-seg", {}),
    "segment nms-free": ("yolo26n-seg", NMS_FREE),
    "segment nms-embedded": ("yolo26n-seg", EMBEDDED),
    "pose raw": ("yolo26n-pose", {}),
    "pose nms-free": ("yolo26n-pose", NMS_FREE),
    "obb raw": ("yolo26n-obb", {}),
    "obb nms-free": ("yolo26n-obb", NMS_FREE),
    "obb nms-embedded": ("yolo26n-obb", EMBEDDED),
    "semantic": ("yolo26n-sem", {}),
    "detect yolo11": ("yolo11n", {}),
    "detect yolov8 nms-embedded": ("yolov8n", EMBEDDED),
    "detect yolov10 nms-free": ("yolov10n", NMS_FREE),
    "rtdetr": ("rtdetr", {}),
    "detect dynamic": ("yolo26n", {"dynamic": True}),
    "segment dynamic": ("yolo26n-seg", {"dynamic": True}),
    "detect batch of 3": ("yolo26n", {"batch": 3}),
}


@pytest.fixture(scope="module")
def exported(written: Callable[..., Path]) -> Callable[[str], Path]:
    """Factory of ONNX files, one a case."""

    def make(case: str) -> Path:
        name, args = CASES[case]
        return written(name, **args)

    return make


@pytest.fixture(scope="module")
def images(photos: list[Path]) -> list[np.ndarray]:
    first, second = (cv2.imread(str(path)) for path in photos)
    return [first, second, first[200:700, :300], second[::3, ::3]]


def predictor(path: Path) -> Any:
    from ultralytics import RTDETR, YOLO

    return (RTDETR if Detector(path).metadata.kind is GraphKind.QUERIES else YOLO)(path)


def assert_same_boxes(found: Any, expected: Any) -> None:
    boxes = expected.obb if expected.obb is not None else expected.boxes
    boxes = boxes.cpu().numpy()
    assert len(found) == len(boxes)
    np.testing.assert_array_equal(found.classes, boxes.cls)
    np.testing.assert_allclose(found.scores, boxes.conf, rtol=0, atol=1e-3)
    if expected.obb is not None:
        np.testing.assert_allclose(found.rotated, boxes.xywhr, rtol=0, atol=1e-2)
    np.testing.assert_allclose(found.boxes, boxes.xyxy, rtol=0, atol=0.05)


@pytest.mark.parametrize("case", [case for case in CASES if case != "semantic"])
@pytest.mark.parametrize("thresholds", [{}, {"conf": 0.4, "iou": 0.5, "max_det": 9}, {"classes": [0, 2], "conf": 0.3}])
def test_equals_ultralytics(
    case: str, thresholds: dict[str, Any], exported: Callable[[str], Path], images: list[np.ndarray]
) -> None:
    path = exported(case)
    theirs, ours, count = predictor(path), Detector(path), 0
    sized = {"imgsz": IMGSZ} if "dynamic" in case else {}
    for image in images:
        expected, found = theirs(image, verbose=False, **sized, **thresholds)[0], ours(image, **thresholds)
        assert_same_boxes(found, expected)
        count += len(found)
        if expected.keypoints is not None:
            np.testing.assert_allclose(found.keypoints, expected.keypoints.data.cpu().numpy(), rtol=0, atol=0.05)
        if expected.masks is not None:
            masks = np.stack([found.masks.in_network(i) for i in range(len(found))])
            differing = (masks != expected.masks.data.cpu().numpy().astype(bool)).mean()
            assert masks.shape == tuple(expected.masks.data.shape)
            assert differing < 1e-4
    assert count > 0


FAMILIES = ("yolov5n", "yolov6n", "yolov9t", "yolo12n", "yolov8n-p2", "yolov8n-worldv2")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_equals_ultralytics(
    name: str, lively: Callable[[str], Path], images: list[np.ndarray], tmp_path: Path
) -> None:
    from ultralytics import YOLO

    from ima_yolo.export import export_onnx

    source, conf = tmp_path / "x.pt", 0.25
    if name == "yolov9t":  # so deep that rounding shows once its maps vary: as it is made, and its best boxes
        YOLO(f"{name}.yaml").save(source)
    path = export_onnx(source if source.exists() else lively(name), tmp_path / "x.onnx", imgsz=IMGSZ).path
    theirs, ours, count = predictor(path), Detector(path), 0
    if source.exists():
        scores = ours.infer(ours.prepare(images[:1])[0])[0][0, 4:].max(axis=0)
        conf = float(np.sort(scores)[-20])
    for image in images:
        expected, found = theirs(image, verbose=False, conf=conf)[0], ours(image, conf=conf)
        assert_same_boxes(found, expected)
        count += len(found)
    assert count > 5


def test_a_maximum_over_padded_zeros_is_as_torch_has_it(lively: Callable[[str], Path], tmp_path: Path) -> None:
    """ONNX Runtime's own optimizer would move the boxes of YOLOv3-tiny by pixels, and does so for Ultralytics."""
    from ima_yolo.export import export_onnx

    report = export_onnx(lively("yolov3-tiny"), tmp_path / "x.onnx", imgsz=IMGSZ)
    assert report.max_box_difference < 0.05


@pytest.mark.parametrize("case", ["segment raw", "detect dynamic", "detect batch of 3", "rtdetr", "pose nms-free"])
def test_a_list_gives_what_single_pictures_give(
    case: str, exported: Callable[[str], Path], images: list[np.ndarray]
) -> None:
    detector = Detector(exported(case))
    alike = [images[0], images[0][::-1], images[0][:, ::-1]]  # of one shape, as Ultralytics' rectangles ask
    together = detector.detect(alike, Thresholds())
    for image, found in zip(alike, together, strict=True):
        alone = detector(image)
        np.testing.assert_allclose(found.boxes, alone.boxes, rtol=0, atol=1e-2)
        np.testing.assert_array_equal(found.classes, alone.classes)
        np.testing.assert_allclose(found.scores, alone.scores, rtol=0, atol=1e-4)
        if alone.keypoints is not None:
            np.testing.assert_allclose(found.keypoints, alone.keypoints, rtol=0, atol=1e-2)
        if alone.masks is not None:
            assert np.mean([(a != b).mean() for a, b in zip(found.masks, alone.masks, strict=True)]) < 1e-4
    assert sum(len(found) for found in together) > 0
    assert detector.detect([], Thresholds()) == []


def test_a_dynamic_file_pads_less_and_takes_other_sizes(
    exported: Callable[[str], Path], images: list[np.ndarray]
) -> None:
    detector = Detector(exported("detect dynamic"), imgsz=[64, 128])
    blob, _ = detector.prepare([images[1]])  # 720x1280 into 64x128: 64x114, padded to the next 32
    assert blob.shape == (1, 3, 64, 128)
    assert Detector(exported("detect dynamic")).prepare([images[1]])[0].shape == (1, 3, 64, 96)
    mixed, _ = Detector(exported("detect dynamic")).prepare(images[:2])
    assert mixed.shape == (2, 3, IMGSZ, IMGSZ)
    theirs = predictor(exported("detect dynamic"))(images[1], imgsz=[64, 128], verbose=False)[0]
    assert_same_boxes(detector(images[1]), theirs)


@pytest.mark.parametrize("classes", [None, [0, 2]])
def test_semantic_equals_ultralytics(
    classes: list[int] | None, exported: Callable[[str], Path], images: list[np.ndarray]
) -> None:
    theirs, ours = predictor(exported("semantic")), Detector(exported("semantic"))
    for image in images:
        expected = theirs(image, classes=classes, verbose=False)[0].semantic_mask.data.cpu().numpy()
        found = ours(image, classes=classes)
        assert isinstance(found, ClassMap)
        np.testing.assert_array_equal(found.classes, expected)
        assert len(np.unique(expected)) > 1
        assert sum(found.shares().values()) == pytest.approx(float((expected != 255).mean()))
        assert (found.draw(image) != image).any()


def test_masks_at_the_size_of_the_picture(exported: Callable[[str], Path], images: list[np.ndarray]) -> None:
    found = Detector(exported("segment raw"))(images[0])
    masks = list(found.masks)
    assert {mask.shape for mask in masks} == {images[0].shape[:2]}
    assert sum(mask.any() for mask in masks) > len(masks) / 2
    for index, mask in enumerate(masks):
        rows, columns = np.nonzero(mask)
        if not len(rows):  # all of it lies in the padding
            continue
        x1, y1, x2, y2 = found.boxes[index]
        slack = max(images[0].shape[:2]) / IMGSZ  # a pixel of the network input
        assert columns.min() >= x1 - slack
        assert columns.max() <= x2 + slack
        assert rows.min() >= y1 - slack
        assert rows.max() <= y2 + slack


def test_semantic_has_no_boxes_to_write(exported: Callable[[str], Path], photos: list[Path]) -> None:
    from ima_yolo.export.predict import run

    assert run(exported("semantic"), photos[0], save_txt=True, save_json=True, save_csv=True) == 0
    folder = Path("runs/detect/predict")
    assert cv2.imread(str(folder / "labels" / "bus.png"), cv2.IMREAD_UNCHANGED).shape == (1080, 810)
    assert (folder / "predictions.csv").read_text().startswith("image,frame,name,class,pixel_ratio\n")


@pytest.mark.parametrize("case", ["segment raw", "pose raw", "obb raw"])
def test_label_lines_equal_ultralytics(
    case: str, exported: Callable[[str], Path], images: list[np.ndarray], tmp_path: Path
) -> None:
    image = images[0]
    theirs = predictor(exported(case))(image, verbose=False)[0]
    theirs.save_txt(tmp_path / "x.txt", save_conf=True)
    expected = [[float(v) for v in line.split()] for line in (tmp_path / "x.txt").read_text().splitlines()]
    result = Detector(exported(case))(image)
    found = [[float(v) for v in line.split()] for line in result.to_yolo_txt(True).splitlines()]
    pairs, apart = list(zip(found, expected, strict=True)), []
    if case == "segment raw":  # where a mask falls apart, they join its parts by other bridges
        masks = result.masks
        parts = [cv2.connectedComponents(masks.in_network(i).astype(np.uint8))[0] - 1 for i in range(len(masks))]
        apart = [pair for pair, count in zip(pairs, parts, strict=True) if count > 1]
        pairs = [pair for pair, count in zip(pairs, parts, strict=True) if count == 1]
        assert apart
    assert pairs
    for ours, other in pairs:
        np.testing.assert_allclose(ours, other, rtol=0, atol=2e-3)
    for ours, other in apart:
        assert overlap(ours[1:-1], other[1:-1], image.shape[:2]) > 0.97


def overlap(one: list[float], other: list[float], shape: tuple[int, int]) -> float:
    """The share of the area that two polygons of a label file cover together, of what either covers."""
    covered = []
    for line in (one, other):
        points = np.array(line).reshape(-1, 2) * [shape[1], shape[0]]
        filled = cv2.fillPoly(np.zeros(shape, np.uint8), [points.round().astype(np.int32)], 1)
        covered.append(cv2.morphologyEx(filled, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))  # a bridge is a pixel wide
    return float((covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum())


def test_a_size_that_does_not_fit_a_fixed_file(exported: Callable[[str], Path]) -> None:
    with pytest.raises(IMAError, match=r"fixed to \[96, 96\]"):
        Detector(exported("detect batch of 3"), imgsz=64)


@pytest.mark.parametrize("case", ["detect yolo11", "segment raw", "pose raw", "obb raw", "semantic"])
def test_drawing_takes_what_the_detector_takes(
    case: str, exported: Callable[[str], Path], images: list[np.ndarray]
) -> None:
    detector, grey = Detector(exported(case)), cv2.cvtColor(images[0], cv2.COLOR_BGR2GRAY)
    expected = detector(grey).draw(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    for image in (grey, grey[..., None], grey.astype(np.uint16) * 257):
        np.testing.assert_array_equal(detector(image).draw(image), expected)
    assert (expected != cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)).any()


@pytest.mark.parametrize("names", ["{0: 'disc'}", "{0: 'disc', 1: 'square', 2: 'triangle', 3: 'more'}"])
def test_a_segmentation_file_with_names_of_another(names: str, exported: Callable[[str], Path], tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(exported("segment raw")))
    for entry in model.metadata_props:
        entry.value = names if entry.key == "names" else entry.value
    onnx.save(model, str(tmp_path / "x.onnx"))
    with pytest.raises(IMAError, match=r"output has shape \[1, 39, 189\]"):
        Detector(tmp_path / "x.onnx")


@pytest.mark.parametrize("side", [960_000, 10**12 * 32])
def test_an_input_larger_than_the_memory(side: int, exported: Callable[[str], Path], images: list[np.ndarray]) -> None:
    detector = Detector(exported("detect dynamic"), imgsz=side)
    with pytest.raises(IMAError, match="does not fit the memory"):
        detector(images[0])
