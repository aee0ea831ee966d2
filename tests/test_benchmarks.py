"""The benchmark scripts: their figures by hand, and a small part of what they measure at length."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]
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


def test_the_demo_as_measured_keeps_its_promise_and_is_what_the_readme_shows() -> None:
    measured = json.loads((REPOSITORY / "benchmarks" / "results" / "demo.json").read_text())
    models = {model["name"]: model for model in measured["models"]}
    assert measured["seconds"] <= 360
    assert models["teacher"]["map50"] >= 0.6
    readme = (REPOSITORY / "README.md").read_text()
    assert f"It took {measured['seconds']} s on two cores" in readme
    for model in models.values():
        row = f"| {model['map50_95']:.3f} | {model['map50']:.3f} | {model['milliseconds_per_image']:.1f} |"
        assert row in readme, row
