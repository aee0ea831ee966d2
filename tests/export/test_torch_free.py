"""The runtime in a process that has neither torch nor ultralytics nor onnx."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

BLOCKED = """
import sys
for name in ("torch", "torchvision", "ultralytics", "onnx", "pydantic", "PIL", "matplotlib"):
    sys.modules[name] = None  # an import of it raises
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, timeout=120)


def test_predict_runs(toy: Callable[..., Path], tmp_path: Path) -> None:
    model = toy(np.array([[[32, 32, 32, 16, 0.1, 0.9]]]).transpose(0, 2, 1))
    cv2.imwrite("a.png", np.zeros((100, 200, 3), np.uint8))
    code = f"""
from ima_yolo.export import Detections, Detector
from ima_yolo.export.predict import run
import cv2
assert isinstance(Detector({str(model)!r})(cv2.imread("a.png")), Detections)
raise SystemExit(run({str(model)!r}, "a.png", save_txt=True, save_json=True))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "200x100 1 square" in done.stdout
    assert Path("runs/detect/predict/labels/a.txt").read_text() == "1 0.5 0.5 0.5 0.5\n"


def test_the_block_works() -> None:
    done = python("from ima_yolo.export import export_onnx")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr
