"""What a user may ask of an export: keys, precision, target file and pictures, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ima_yolo.errors import IMAError, closest

from .sources import need_image

EXPORT_KEYS = (
    *("imgsz", "batch", "dynamic", "simplify", "opset", "device", "quantize", "half", "int8"),
    *("nms", "conf", "iou", "max_det", "agnostic_nms"),
)
"""Keys of `yolo export` that have a meaning for ONNX in float."""

FP16_SCHEMES = (16, "16", "fp16", "w16a16")
"""Values of Ultralytics' `quantize` for half precision."""

FLOAT_SCHEMES = (None, 32, "32", "fp32", "w32a32", *FP16_SCHEMES)
"""Values of `quantize` that keep floats."""

INT8_SCHEMES = (8, "8", "int8", "w8a8")
"""Values of `quantize` for int8."""

MOST_OPSET = 23  # of the exporter of PyTorch that Ultralytics calls


def asks_for_int8(options: Mapping[str, Any]) -> bool:
    """Whether export arguments ask for an int8 file."""
    return options.get("quantize") in INT8_SCHEMES or options.get("int8") is True


def check_int8_alone(options: Mapping[str, Any]) -> None:
    """Refuse another precision beside int8.

    Args:
        options: Export arguments that ask for int8.

    Raises:
        IMAError: Naming it.
    """
    scheme = options.get("quantize")
    if scheme is not None and scheme not in INT8_SCHEMES:
        raise IMAError(f"int8=True with quantize={scheme}: expected one of them")
    if options.get("half"):
        raise IMAError("half=True with quantize=8: expected one of them; int8 is made of a float32 file")


def nearest_key(key: str, valid: Sequence[str]) -> str:
    """The end of an error message about an unknown key: the nearest valid one, or all of them."""
    found = closest(key, valid)
    return f"did you mean {found}=?" if found else f"valid keys: {', '.join(valid)}"


def check_export_args(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the names of export arguments, sizes, opset and the precision of a float file; Ultralytics checks the rest.

    Raises:
        IMAError: An unknown key, another format than ONNX, a size that is none, an opset that no
            PyTorch writes, or a precision that is no float.
    """
    args = dict(given)
    if args.pop("format", "onnx") != "onnx":
        raise IMAError(f"format={given['format']}: expected onnx; `yolo export` writes the other formats")
    for key in args:
        if key not in EXPORT_KEYS:
            raise IMAError(f"{key}= is not an export argument, {nearest_key(key, EXPORT_KEYS)}")
    for key in ("batch", "imgsz"):  # of which Ultralytics makes something else, or fails in the middle
        value = 1 if args.get(key) is None else args[key]
        for number in value if isinstance(value, (list, tuple)) and key == "imgsz" else [value]:
            if type(number) is not int or number < 1:
                raise IMAError(f"{key}={value}: expected " + ("pixels" if key == "imgsz" else "a whole number above 0"))
    opset = args.get("opset")
    if opset is not None and not (type(opset) is int and 1 <= opset <= MOST_OPSET):  # it prints the graph, and fails
        raise IMAError(f"opset={opset}: expected a whole number from 1 to {MOST_OPSET}")
    half, int8 = args.pop("half", None), args.pop("int8", None)
    if half:  # Ultralytics' older spelling
        args.setdefault("quantize", 16)
    if int8 or args.get("quantize") not in FLOAT_SCHEMES:
        asked = "int8=True" if int8 else f"quantize={args['quantize']}"
        raise IMAError(f"{asked}: expected 8, 16 or 32; int8 is made by `ima-yolo export ... quantize=8 data=...`")
    return args


def find_target(source: Path, output: Path | None) -> Path:
    """The file to write: beside the checkpoint, inside the folder `output`, or `output` itself.

    Raises:
        IMAError: It does not end in .onnx, or its folder does not exist.
    """
    target = source.with_suffix(".onnx") if output is None else Path(output)
    if target.is_dir():
        target = target / f"{source.stem}.onnx"
    if target.suffix.lower() != ".onnx":
        raise IMAError(f"output={target}: expected a file name that ends in .onnx, or a folder")
    if not target.parent.is_dir():
        raise IMAError(f"output={target}: no such folder as {target.parent}, make it first")
    return target


def read_images(paths: Sequence[Path], channels: int = 3) -> list[np.ndarray]:
    """Read the pictures that an export is compared on, each (H, W, `channels`) uint8, BGR where that is 3.

    Raises:
        IMAError: There is none, or one cannot be read.
    """
    if not paths:
        raise IMAError("images=[]: expected at least one picture to compare the export on")
    return [need_image(Path(path), channels) for path in paths]
