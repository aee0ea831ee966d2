"""What int8 and fp16 cost and bring: size, accuracy and time of each file that one checkpoint can become.

    python benchmarks/int8.py ../shared/data/bccd/data.yaml model=../shared/weights/bccd_yolo26s.pt imgsz=224 \
        folder=int8 output=benchmarks/results/int8_bccd.json

Files that `folder` holds already are taken as they are, so that a second call measures the times alone, on an idle
machine. trained= names a checkpoint of a training with quantize=8 that began with the model: its weights as float and
as int8 stand beside the others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from equality import writable_copy

from ima_yolo.cli import read_options
from ima_yolo.export import export_onnx
from ima_yolo.export.machine import processor
from ima_yolo.export.quantize import QuantizeOptions, accuracy_of, quantize_onnx, session_times
from ima_yolo.export.session import open_session, session_metadata

VARIANTS: dict[str, dict[str, Any]] = {
    "float": {},
    "float, dynamic": {"dynamic": True},
    "fp16": {"quantize": 16},
    "int8, percentile": {"calibration": "percentile"},
    "int8, entropy": {"calibration": "entropy"},
    "int8, minmax": {"calibration": "minmax"},
    "int8, percentile, dynamic": {"calibration": "percentile", "dynamic": True},
}
TRAINED = ("float", "int8, percentile")


def name_of(variant: str) -> str:
    """A variant's file without its ending."""
    return variant.replace(", ", "-")


def whole_of(variant: str) -> str:
    """The float file that a variant is judged by: a dynamic one pads less, which moves its accuracy as well."""
    return "float, dynamic" if variant.endswith("dynamic") else "float"


def make(model: Path, variant: str, data: Path, images: Sequence[Path], folder: Path, imgsz: int) -> dict[str, Any]:
    """Write one file and measure its accuracy, unless that is done.

    Returns:
        Its name, bytes, accuracy, and of int8 the layers in float.
    """
    path, options = folder / f"{name_of(variant)}.onnx", dict(VARIANTS[variant])
    note = path.with_suffix(".row.json")
    if note.exists():
        return dict(json.loads(note.read_text()))
    folder.mkdir(exist_ok=True)
    calibration, more = options.pop("calibration", None), {}
    target = path if calibration is None else folder / f"{name_of(whole_of(variant))}.onnx"
    if not target.exists():
        export_onnx(model, target, images[:4], imgsz=imgsz, **options)
    if calibration is not None:
        report = quantize_onnx(target, path, QuantizeOptions(str(data), calibration=calibration))
        more = {"in_float": list(report.in_float), "layers": report.layers}
    metadata = session_metadata(open_session(path), str(path))
    metric, accuracy = accuracy_of(path, metadata, str(data))
    row = {"file": variant, "bytes": path.stat().st_size, metric: accuracy, **more}
    note.write_text(json.dumps(row))
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures in Markdown, losses in points against the float file of the model."""
    whole = {row["file"]: row["mAP50-95(B)"] for row in rows}
    lines = ["| file | MB | mAP50-95 | loss | ms | layers in float |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        loss = f"{100 * (whole[whole_of(row['file'])] - row['mAP50-95(B)']):+.2f}"
        kept = f"{len(row['in_float'])} of {row['layers']}" if "layers" in row else ""
        figures = f"{row['bytes'] / 1e6:.1f} | {row['mAP50-95(B)']:.4f} | {loss} | {row['milliseconds']:.1f}"
        lines.append(f"| {row['file']} | {figures} | {kept} |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> None:
    """Make the files, measure, print a table, and write what output= names."""
    options = read_options(words)
    data, model, imgsz = Path(options[""][0]).resolve(), Path(options["model"]).resolve(), options.get("imgsz", 320)
    folder, threads = Path(options.get("folder", "int8")).resolve(), options.get("threads", 2)
    folder.mkdir(exist_ok=True)
    copy, images = writable_copy(data, folder)
    rows, files = [], {}
    for variant in VARIANTS:
        rows.append(make(model, variant, copy, images, folder, imgsz))
        files[variant] = folder / f"{name_of(variant)}.onnx"
    for variant in TRAINED if "trained" in options else ():
        row = make(Path(options["trained"]).resolve(), variant, copy, images, folder / "trained", imgsz)
        rows.append({**row, "file": f"trained for int8: {variant}"})
        files[rows[-1]["file"]] = folder / "trained" / f"{name_of(variant)}.onnx"
    blob = np.random.default_rng(0).random((1, 3, imgsz, imgsz), np.float32)
    measured = session_times([files[row["file"]] for row in rows], blob, threads)
    for row, milliseconds in zip(rows, measured, strict=True):
        row["milliseconds"] = milliseconds
    print(table(rows))
    if "output" in options:
        content = {"model": model.stem, "data": data.parent.name, "imgsz": imgsz, "threads": threads}
        content |= {"validation images": len(images), "processor": processor(), "files": rows}
        Path(options["output"]).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
