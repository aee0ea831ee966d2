"""The aims of the edge, each a ratio to Ultralytics' predictor on the same machine in alternating rounds.

    python benchmarks/edge.py ../shared/data/coco128/data.yaml output=benchmarks/results/edge.json

All four parts (`parts=224,320,640,int8`) take a quarter of an hour. Single ones are added to what `output=` holds, and
`models=` names a folder that keeps the exported files for the next part.

The model is a yolo26n with untrained weights, made to find as many objects in the median picture as are labelled: what
is done after the network depends on them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
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
from ima_yolo.export.benchmark import OURS, THEIRS, Benchmark, Cell, run_benchmark
from ima_yolo.export.postprocess import Thresholds
from ima_yolo.export.quantize import QuantizeOptions, quantize_onnx

SIZES = (224, 320, 640)
PARTS = {**{str(size): f"{size} px" for size in SIZES}, "int8": "int8, 320 px"}
THREADS, BATCHES = (1, 2), (1, 8)
BIAS = -25.0
"""Of the first model's class scores: so low that none of them rounds to 1."""

BISECTIONS = 40
PHOTOS = (ASSETS / "bus.jpg", ASSETS / "zidane.jpg")


Aim = tuple[str, float, float, bool, str]


def aims(results: dict[str, Benchmark]) -> list[Aim]:
    """Each aim with its figure, its bound, whether it is met, and of a median in how many rounds it was."""
    rows: list[Aim] = []
    for size, bound in ((640, 0.05), (320, 0.10)):
        cells = results[PARTS[str(size)]].cells
        share = next(c.outside for c in cells if (c.threads, c.batch, c.side) == (2, 1, OURS))
        rows.append((f"time outside the session at {size} px, 2 threads, batch 1", share, bound, share <= bound, ""))
    for size in SIZES:
        result = results[PARTS[str(size)]]
        for cell in result.cells:
            if cell.side == OURS:
                where = f"{size} px, {cell.threads} thread{'s' * (cell.threads > 1)}, batch {cell.batch}"
                ratios = result.ratios(cell.threads, cell.batch)
                rows.append(_throughput(f"throughput over Ultralytics', {where}", ratios, 1.08 if size <= 320 else 1.0))
    what = "int8 throughput over Ultralytics' on the float file, 320 px, 2 threads"
    rows.append(_throughput(what, results[PARTS["int8"]].ratios(2, 1), 1.6))
    for size in SIZES:
        result = results[PARTS[str(size)]]
        start = float(np.median(result.cold_start[OURS]) / np.median(result.cold_start[THEIRS]))
        rows.append((f"cold start over Ultralytics', {size} px", start, 0.12, start <= 0.12, ""))
        memory = result.memory[OURS] / result.memory[THEIRS]
        rows.append((f"peak memory over Ultralytics', {size} px", memory, 0.2, memory <= 0.2, ""))
    return rows


def _throughput(what: str, ratios: Sequence[float], bound: float) -> Aim:
    ratio = float(np.median(ratios))
    return what, ratio, bound, ratio >= bound, f"{sum(value >= bound for value in ratios)} of {len(ratios)}"


def main(words: Sequence[str]) -> None:
    """Export, measure, and write what output= names, with a table (.md) and a plot (.png) of each part beside it."""
    options = read_options(words)
    output = Path(options.get("output", "edge.json"))
    rounds, seconds = options.get("rounds", 7), float(options.get("seconds", 1.0))
    asked = options.get("parts", list(PARTS))
    parts = [str(part) for part in asked] if isinstance(asked, (list, tuple)) else str(asked).split(",")
    results = _read(output)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.get("models", name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        data = Path(options[""][0]).resolve()
        copy = Path(shutil.copytree(data.parent, Path(name) / "data")) / data.name
        images = sorted((copy.parent / yaml.safe_load(copy.read_text())["val"]).glob("*.jpg"))[:16]
        for part in parts:
            files = _files(part, folder, copy, images)
            counts = [len(Detector(files[0])(cv2.imread(str(image)))) for image in images]
            print(
                f"{part}: {np.median(counts):.0f} detections in the median image, {_labelled(images):.0f} labelled",
                flush=True,
            )
            cells = ((2,), (1,)) if part == "int8" else (THREADS, BATCHES)
            measured = run_benchmark(*files, images, *cells, rounds, seconds)
            measured.files = {side: Path(file).name for side, file in measured.files.items()}
            results[PARTS[part]] = measured
            print(f"\n{PARTS[part]}\n{table(measured)}", flush=True)
            _write(output, {title: results[title] for title in PARTS.values() if title in results})


def _files(part: str, folder: Path, data: Path, images: Sequence[Path]) -> tuple[Path, Path]:
    """The file that our runtime runs and the one that Ultralytics' predictor runs, made where they are missing."""
    size = 320 if part == "int8" else int(part)
    exported, checkpoint = folder / f"yolo26n_{size}.onnx", folder / "yolo26n.pt"
    if not exported.exists():
        names, bias = yaml.safe_load(data.read_text())["names"], BIAS
        for _ in range(2):  # the second time with the scores that the first showed to be needed
            lively_checkpoint(checkpoint, "yolo26n", names, crops_of(PHOTOS, 320), bias)
            found = Path(YOLO(checkpoint).export(format="onnx", imgsz=size))
            bias += _raise(found, images)
        found.rename(exported)
    small = folder / "yolo26n_int8.onnx"
    if part == "int8" and not small.exists():
        quantize_onnx(exported, small, QuantizeOptions(str(data), max_loss=1.0))  # untrained: there is none to lose
    return small if part == "int8" else exported, exported


def _raise(model: Path, images: Sequence[Path]) -> float:
    """By how much the class scores, before the sigmoid, have to rise for as many detections as there are labels."""
    detector, default = Detector(model), Thresholds().conf
    seen = []
    for image in images:
        blob, places = detector.prepare([cv2.imread(str(image))])
        seen.append((detector.infer(blob), places))
    low, high = -40.0, 40.0  # of the least score, before the sigmoid
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        thresholds = Thresholds(conf=1 / (1 + np.exp(-middle)))
        count = np.median([len(detector.read(outputs, places, thresholds)[0]) for outputs, places in seen])
        low, high = (middle, high) if count > _labelled(images) else (low, middle)
    return float(np.log(default / (1 - default)) - high)


def _labelled(images: Sequence[Path]) -> float:
    """Median number of objects that are labelled in an image."""
    files = [Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt") for image in images]
    return float(np.median([len(file.read_text().splitlines()) if file.exists() else 0 for file in files]))


def _read(path: Path) -> dict[str, Benchmark]:
    """The parts that were measured before."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results = {}
    for title in (title for title in PARTS.values() if title in content):
        found = {item.name: content[title][item.name] for item in fields(Benchmark)}
        for cell in found["cells"]:
            cell["latency"] = {int(q): value for q, value in cell["latency"].items()}
        found["cells"] = [Cell(**cell) for cell in found["cells"]]
        results[title] = Benchmark(**found)
    return results


def _write(output: Path, results: dict[str, Benchmark]) -> None:
    content: dict[str, Any] = {name: json.loads(result.to_json()) for name, result in results.items()}
    text = []
    if len(results) == len(PARTS):
        rows = aims(results)
        text = ["| aim | measured | bound | met | in rounds |", "|---|---:|---:|---|---|"]
        text += [
            f"| {what} | {value:.3f} | {bound} | {'yes' if met else 'no'} | {rounds} |"
            for what, value, bound, met, rounds in rows
        ]
        content["aims"] = [dict(zip(("aim", "measured", "bound", "met", "rounds"), row, strict=True)) for row in rows]
        print("\n".join(text))
    for name, result in results.items():
        plot(result, output.with_name(f"{output.stem}_{name.split()[0].strip(',')}.png"))
        text += ["", f"## {name}", "", table(result)]
    output.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
