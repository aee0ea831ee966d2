"""Our runtime beside Ultralytics' predictor: the matching by hand, a few cells, and what was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from committed import REPOSITORY

BOXES = np.array([[0, 0, 10, 10, 0.9, 0], [1, 0, 11, 10, 0.9, 0], [50, 50, 60, 60, 0.5, 1]], np.float32)


@pytest.mark.parametrize(
    ("change", "pairs"),
    [
        (np.zeros((3, 6)), 3),
        (np.full((3, 1), 0.9) * [1, 1, 1, 1, 0, 0], 3),
        (np.array([[0] * 6, [0] * 6, [1.1, 0, 0, 0, 0, 0]]), 2),
        (np.array([[0] * 6, [0] * 6, [0, 0, 0, 0, 0.002, 0]]), 2),
        (np.array([[0] * 6, [0] * 6, [0, 0, 0, 0, 0, 1]]), 2),
    ],
)
def test_detections_are_matched_one_to_one(change: np.ndarray, pairs: int) -> None:
    from equality import match

    assert match(BOXES, BOXES[::-1] + change[::-1]) == pairs
    assert match(BOXES, np.concatenate([BOXES[:1]] * 3)) == 2
    assert match(BOXES, BOXES[:0]) == match(BOXES[:0], BOXES[:0]) == 0


def test_equality_on_a_few_cells(shared: Path, tmp_path: Path) -> None:
    from equality import compare

    from ima_yolo.export import export_onnx

    weights = shared / "weights" / "bccd_yolo26s.pt"
    files = sorted((shared / "data" / "bccd" / "images" / "val").glob("*.jpg"))[6:12]
    if not weights.exists() or not files:
        pytest.skip(f"no {weights} or no bccd images")
    path = export_onnx(weights, tmp_path / "cells.onnx", files[:2], imgsz=224).path
    found = compare(path, [cv2.imread(str(file)) for file in files])
    assert found["detections"] > 60
    assert found["same"] >= 0.995


def labels_as_found(task: str, data: Path, shift: int) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """What a perfect reader would find in the validation pictures of 96 px, moved to the right by some pixels."""
    given: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    for file in (data.parent / "images" / "val").iterdir():
        if task == "semantic":
            classes = cv2.imread(str(data.parent / "masks" / "val" / file.name), cv2.IMREAD_UNCHANGED)
            given[file.name] = np.roll(classes, shift, axis=1), None
            continue
        text = (data.parent / "labels" / "val" / f"{file.stem}.txt").read_text()
        rows, masks, aside = [], [], np.array([shift, 0])
        for kind, *numbers in map(str.split, text.splitlines()):
            values = np.array([float(number) for number in numbers]) * 96
            if task == "segment":
                corners = values.reshape(-1, 2) + aside
                low, high = corners.min(axis=0), corners.max(axis=0)
                mask = cv2.fillPoly(np.zeros((96, 96), np.uint8), [corners.round().astype(np.int32)], 1)
                masks.append(mask.astype(bool))
            else:
                low, high = values[:2] - values[2:] / 2 + aside, values[:2] + values[2:] / 2 + aside
            rows.append([*low, *high, 0.9, int(kind)])
        given[file.name] = np.array(rows), np.stack(masks) if masks else None
    return given


@pytest.mark.parametrize("task", ["detect", "segment", "semantic"])
def test_the_validator_measures_what_it_is_given(
    task: str,
    tiny_data: Path,
    task_data: Callable[[str], Path],
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    from equality import accuracy_of
    from ultralytics import YOLO

    data = tiny_data if task == "detect" else task_data(task)
    names = ("disc", "square", "triangle", *(("background",) if task == "semantic" else ()))
    config = {"detect": "yolo26n-few.yaml", "segment": "yolo26n-seg.yaml", "semantic": "yolo26n-sem.yaml"}[task]
    model = shutil.copyfile(tiny_checkpoint(config, names=names), tmp_path / "x.pt")
    graph = Path(YOLO(model).export(format="onnx", imgsz=96))
    right = accuracy_of(graph, task, data, labels_as_found(task, data, 0), 96, tmp_path)
    wrong = accuracy_of(graph, task, data, labels_as_found(task, data, 12), 96, tmp_path)
    assert set(right) == {"detect": {"mAP50-95"}, "segment": {"mAP50-95", "mask mAP50-95"}, "semantic": {"mIoU"}}[task]
    for name, value in right.items():
        assert value > 0.75, name  # masks are compared at a quarter of the pixels
        assert wrong[name] < value - 0.3, name


def test_masks_are_brought_to_a_quarter() -> None:
    from equality import quarter

    masks = np.zeros((1, 8, 8), bool)
    masks[0, :3, :3] = True  # 9 of the 16 pixels of the first cell
    masks[0, 4:6, 4:8] = True  # 8 of 16
    assert quarter(masks, (8, 8))[0].tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ValueError, match="for an input of"):
        quarter(masks, (16, 8))


def test_both_readers_agree_as_measured() -> None:
    """Line by line of results/equality.json: detections within 1 px and 0.001, and accuracy within 0.001."""
    rows = json.loads((REPOSITORY / "benchmarks" / "results" / "equality.json").read_text())
    assert {(row["data"], row["images"]) for row in rows} == {
        ("bccd", 87),
        ("coco128", 128),
        ("coco128-seg", 48),
        ("coco128-sem", 48),
    }
    for row in rows:
        assert row["detections"] > 100, row
        assert row["same"] >= 0.995, row
        for name in ("mAP50-95", "mask mAP50-95", "mIoU"):
            if f"{name} ours" in row:
                assert abs(row[f"{name} ours"] - row[f"{name} theirs"]) <= 0.001, row
                assert row[f"{name} ours"] > 0.02, "an accuracy of nothing says nothing"
    trained = {(row["data"], row.get("task", "detect"), row["kind"]) for row in rows if "untrained" not in row["model"]}
    kinds = ("raw", "nms-free", "nms-embedded")
    wanted = {(data, "detect", kind) for data in ("bccd", "coco128") for kind in (*kinds, "queries")}
    wanted |= {("coco128-seg", "segment", kind) for kind in kinds} | {("coco128-sem", "semantic", "dense")}
    assert wanted == trained
