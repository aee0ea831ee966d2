"""The aims of the edge, each a ratio to Ultralytics' predictor on the same machine in alternating rounds.

    python benchmarks/edge.py ../shared/data/coco128/data.yaml output=benchmarks/results/edge.json

The model is a yolo26n of 80 classes with untrained weights, made to find about as many objects as a trained one.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from lively import crops_of, lively_checkpoint
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from ima_yolo.cli import read_options
from ima_yolo.export import Detector
from ima_yolo.export.bench_report import plot, table
from ima_yolo.export.benchmark import OURS, THEIRS, Benchmark, run_benchmark
from ima_yolo.export.quantize import QuantizeOptions, quantize_onnx

SIZES = (224, 320, 640)
THREADS, BATCHES = (1, 2), (1, 8)
BIAS = -10.0
PHOTOS = (ASSETS / "bus.jpg", ASSETS / "zidane.jpg")


def aims(results: dict[int, Benchmark], int8: Benchmark) -> list[tuple[str, float, float, bool]]:
    """Each aim with its figure, its bound, and whether it is met."""
    rows = []
    for size, bound in ((640, 0.05), (320, 0.10)):
        share = next(c.outside for c in results[size].cells if (c.threads, c.batch, c.side) == (2, 1, OURS))
        rows.append((f"time outside the session at {size} px, 2 threads, batch 1", share, bound, share <= bound))
    for size, result in results.items():
        for cell in result.cells:
            if cell.side == OURS:
                ratio = result.ratio(cell.threads, cell.batch) or 0.0
                bound = 1.08 if size <= 320 else 1.0
                where = f"{size} px, {cell.threads} threads, batch {cell.batch}"
                rows.append((f"throughput over Ultralytics', {where}", ratio, bound, ratio >= bound))
    ratio = int8.ratio(2, 1) or 0.0
    rows.append(("int8 throughput over Ultralytics' on the float file, 320 px, 2 threads", ratio, 1.6, ratio >= 1.6))
    first = next(iter(results.values()))
    start = float(np.median(first.cold_start[OURS]) / np.median(first.cold_start[THEIRS]))
    rows.append(("cold start over Ultralytics'", start, 0.12, start <= 0.12))
    memory = first.memory[OURS] / first.memory[THEIRS]
    rows.append(("peak memory over Ultralytics'", memory, 0.2, memory <= 0.2))
    return rows


def main(words: Sequence[str]) -> None:
    """Export, measure, and write what output= names, with a table (.md) and a plot (.png) beside it."""
    options = read_options(words)
    output = Path(options.get("output", "edge.json"))
    rounds, seconds = options.get("rounds", 7), float(options.get("seconds", 1.0))
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), Path(options[""][0]).resolve()
        copy = Path(shutil.copytree(data.parent, folder / "data")) / data.name
        images = sorted((copy.parent / yaml.safe_load(copy.read_text())["val"]).glob("*.jpg"))[:16]
        names = yaml.safe_load(copy.read_text())["names"]
        checkpoint = lively_checkpoint(folder / "yolo26n.pt", "yolo26n", names, crops_of(PHOTOS, 320), BIAS)
        files = {size: _export(checkpoint, size, folder) for size in SIZES}
        counts = [len(Detector(files[320])(cv2.imread(str(image)))) for image in images]
        print(f"{np.mean(counts):.1f} detections an image at 320 px", flush=True)
        results = {}
        for size, file in files.items():
            results[size] = run_benchmark(file, file, images, THREADS, BATCHES, rounds, seconds)
            print(f"\n{size} px\n{table(results[size])}", flush=True)
        small = folder / "yolo26n_int8.onnx"
        quantize_onnx(files[320], small, QuantizeOptions(str(copy), max_loss=1.0))  # untrained: there is none to lose
        int8 = run_benchmark(small, files[320], images, (2,), (1,), rounds, seconds)
        print(f"\nint8, 320 px\n{table(int8)}", flush=True)
    rows = aims(results, int8)
    _write(output, rows, {**{f"{size} px": result for size, result in results.items()}, "int8, 320 px": int8})


def _export(checkpoint: Path, size: int, folder: Path) -> Path:
    made = Path(YOLO(checkpoint).export(format="onnx", imgsz=size))
    return made.rename(folder / f"yolo26n_{size}.onnx")


def _write(output: Path, rows: list[tuple[str, float, float, bool]], results: dict[str, Benchmark]) -> None:
    text = ["| aim | measured | bound | met |", "|---|---:|---:|---|"]
    text += [f"| {what} | {value:.3f} | {bound} | {'yes' if met else 'no'} |" for what, value, bound, met in rows]
    for name, result in results.items():
        plot(result, output.with_name(f"{output.stem}_{name.split()[0].strip(',')}.png"))
        text += ["", f"## {name}", "", table(result)]
    output.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")
    content: dict[str, Any] = {name: json.loads(result.to_json()) for name, result in results.items()}
    content["aims"] = [dict(zip(("aim", "measured", "bound", "met"), row, strict=True)) for row in rows]
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("\n".join(text[: len(rows) + 2]))


if __name__ == "__main__":
    main(sys.argv[1:])
