"""Arguments of an export."""

from __future__ import annotations

from pathlib import Path

import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export.settings import check_export_args, find_target, nearest_key, read_images


def test_float_exports_pass_through() -> None:
    assert check_export_args({"format": "onnx", "imgsz": 64, "nms": False}) == {"imgsz": 64, "nms": False}
    assert check_export_args({"imgsz": [64, 96], "batch": None}) == {"imgsz": [64, 96], "batch": None}
    assert check_export_args({"half": True}) == {"quantize": 16}
    assert check_export_args({"half": False, "int8": False, "quantize": None}) == {"quantize": None}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"quantize": 8}, "^quantize=8: expected 8, 16 or 32"),
        ({"quantize": "int8"}, "^quantize=int8: "),
        ({"quantize": "w8a16"}, "^quantize=w8a16: "),
        ({"int8": True}, "^int8=True: "),
        ({"format": "engine"}, "^format=engine: expected onnx"),
        ({"imgzs": 64}, r"^imgzs= is not an export argument, did you mean imgsz=\?"),
        ({"batch": 0}, "^batch=0: expected a whole number above 0"),
        ({"batch": "two"}, "^batch=two: expected a whole number above 0"),
        ({"imgsz": 0}, "^imgsz=0: expected pixels"),
        ({"imgsz": [64, -1]}, r"^imgsz=\[64, -1\]: expected pixels"),
        ({"opset": 99}, "^opset=99: expected a whole number from 1 to 23"),
        ({"opset": "17"}, "^opset=17: expected a whole number"),
        ({"qwertz": 1}, "^qwertz= is not an export argument, valid keys: imgsz, "),
    ],
)
def test_what_is_refused(args: dict[str, object], message: str) -> None:
    with pytest.raises(IMAError, match=message):
        check_export_args(args)


def test_nearest_key() -> None:
    assert nearest_key("cof", ["conf", "iou"]) == "did you mean conf=?"
    assert nearest_key("zzz", ["conf", "iou"]) == "valid keys: conf, iou"


def test_target(tmp_path: Path) -> None:
    source = tmp_path / "best.pt"
    assert find_target(source, None) == tmp_path / "best.onnx"
    assert find_target(source, tmp_path) == tmp_path / "best.onnx"
    assert find_target(source, tmp_path / "edge.onnx") == tmp_path / "edge.onnx"
    with pytest.raises(IMAError, match=r"ends in \.onnx"):
        find_target(source, tmp_path / "edge.engine")
    with pytest.raises(IMAError, match="no such folder"):
        find_target(source, tmp_path / "missing" / "edge.onnx")


def test_pictures_to_compare_on(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(IMAError, match=r"x\.png: cannot be read"):
        read_images([tmp_path / "x.png"])
    with pytest.raises(IMAError, match="at least one"):
        read_images([])
