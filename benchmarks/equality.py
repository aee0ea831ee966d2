"""Our runtime against Ultralytics' predictor on the same ONNX files: the same detections, and the same mAP.

    python benchmarks/equality.py ../shared/data/bccd/data.yaml imgsz=224 model=../shared/weights/bccd_yolo26s.pt
    python benchmarks/equality.py ../shared/data/coco128/data.yaml imgsz=320

With model= that checkpoint is compared as each kind of graph, mAP included. Without it, untrained but lively models of
every task and family are compared, whose detections vary but whose mAP says nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from lively import crops_of, lively_checkpoint
from ultralytics import RTDETR, YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import ASSETS

from ima_yolo.cli import read_options
from ima_yolo.export import Detector, export_onnx
from ima_yolo.export.metadata import GraphKind
from ima_yolo.export.results import ClassMap

KINDS: dict[str, dict[str, Any]] = {"raw": {}, "nms-free": {"nms": False}, "nms-embedded": {"nms": True}}
LIVELY = {
    "yolo26n": KINDS,
    "yolo26n-seg": KINDS,
    "yolo26n-pose": KINDS,
    "yolo26n-obb": KINDS,
    "yolo26n-sem": {"dense": {}},
    "yolov8n": {"raw": {}, "nms-embedded": {"nms": True}},
    "yolov10n": {"nms-free": {"nms": False}},
    "yolo11n": {"raw": {}},
    "rtdetr": {"queries": {}},
}
PIXELS, SCORE = 1.0, 1e-3
"""A detection is the same if its class is, and box and score differ by no more."""


def match(expected: np.ndarray, found: np.ndarray) -> int:
    """Count the detections that two lists share.

    Args:
        expected: (N, 6) x1, y1, x2, y2, score, class.
        found: (M, 6) likewise.

    Returns:
        Pairs of one class within `PIXELS` and `SCORE`; each detection is in one pair at most, nearest first.
    """
    gaps = np.abs(expected[:, None, :4] - found[None, :, :4]).max(axis=2, initial=0)  # (N, M)
    alike = (gaps <= PIXELS) & (np.abs(expected[:, None, 4] - found[None, :, 4]) <= SCORE)
    gaps = np.where(alike & (expected[:, None, 5] == found[None, :, 5]), gaps, np.inf)
    pairs = 0
    while gaps.size and np.isfinite(gaps.min()):
        row, column = np.unravel_index(gaps.argmin(), gaps.shape)
        gaps[row], gaps[:, column] = np.inf, np.inf
        pairs += 1
    return pairs


def theirs_of(model: Any, image: np.ndarray, **thresholds: Any) -> np.ndarray:
    """Ultralytics' detections, (N, 6); of a semantic model its class map."""
    result = model(image, verbose=False, **thresholds)[0]
    if result.semantic_mask is not None:
        return np.asarray(result.semantic_mask.data)
    boxes = result.obb if result.obb is not None else result.boxes
    return np.column_stack([np.asarray(boxes.xyxy), np.asarray(boxes.conf), np.asarray(boxes.cls)])


def ours_of(detector: Detector, image: np.ndarray, **thresholds: Any) -> np.ndarray:
    """The same of our runtime."""
    found = detector(image, **thresholds)
    if isinstance(found, ClassMap):
        return found.classes
    return np.column_stack([found.boxes, found.scores, found.classes])


def compare(path: Path, images: Sequence[np.ndarray], **thresholds: Any) -> dict[str, Any]:
    """Compare both readers of one file on pictures.

    Returns:
        The number of detections (of pixels for a semantic model) and the share of them that is the same in both, None
        where there is none.
    """
    detector = Detector(path)
    theirs = (RTDETR if detector.metadata.kind is GraphKind.QUERIES else YOLO)(path)
    count = same = 0
    for image in images:
        expected, found = theirs_of(theirs, image, **thresholds), ours_of(detector, image, **thresholds)
        if detector.metadata.kind is GraphKind.DENSE:
            count, same = count + expected.size, same + int((expected == found).sum())
        else:
            count, same = count + max(len(expected), len(found)), same + match(expected, found)
    return {"detections": count, "same": same / count if count else None}


class GivenValidator(DetectionValidator):
    """Ultralytics' validator, fed with detections in pixels of the pictures in place of the graph's."""

    given: Mapping[str, np.ndarray] = {}

    def postprocess(self, preds: Any) -> Any:
        """Leave the graph's output alone; it is not used."""
        return preds

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        """Bring the given detections to the pixels in which the validator compares."""
        mapped = []
        for file, (gain, pad) in zip(batch["im_file"], batch["ratio_pad"], strict=True):
            rows = torch.from_numpy(self.given[Path(file).name].astype(np.float32))
            boxes = rows[:, :4] * torch.tensor([gain[1], gain[0]] * 2) + torch.tensor([*pad, *pad])
            mapped.append({"bboxes": boxes, "conf": rows[:, 4], "cls": rows[:, 5], "extra": rows[:, 6:]})
        super().update_metrics(mapped, batch)


def mean_precision(path: Path, data: Path, given: Mapping[str, np.ndarray], imgsz: int, folder: Path) -> float:
    """mAP50-95 of given detections by Ultralytics' validator."""
    GivenValidator.given = given
    keys = {"imgsz": imgsz, "batch": 1, "workers": 0, "plots": False, "verbose": False, "project": str(folder)}
    return float(YOLO(path, task="detect").val(validator=GivenValidator, data=str(data), **keys).box.map)


def writable_copy(data: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Copy a data set, since Ultralytics writes caches beside it; gives its yaml and its validation pictures."""
    copy = Path(shutil.copytree(data.parent, folder / data.parent.name)) / data.name
    pictures = sorted((copy.parent / yaml.safe_load(copy.read_text())["val"]).glob("*.jpg"))
    return copy, pictures


def compare_trained(model: Path, data: Path, imgsz: int, folder: Path) -> list[dict[str, Any]]:
    """Each kind of graph of one trained detector, with mAP at conf 0.001."""
    copy, files = writable_copy(data, folder)
    images = [cv2.imread(str(file)) for file in files]
    rows = []
    for kind, args in KINDS.items():
        low = {"conf": 0.001} if kind == "nms-embedded" else {}
        path = export_onnx(model, folder / f"{kind}.onnx", files[:2], imgsz=imgsz, **args, **low).path
        row = {"model": model.stem, "kind": kind, "data": data.parent.name, "images": len(images)}
        row |= compare(path, images, conf=0.25)
        theirs, ours = YOLO(path, task="detect"), Detector(path)
        for who, read in (("theirs", theirs_of), ("ours", ours_of)):
            subject = theirs if who == "theirs" else ours
            given = {f.name: read(subject, i, conf=0.001) for f, i in zip(files, images, strict=True)}
            row[f"mAP50-95 {who}"] = mean_precision(path, copy, given, imgsz, folder)
        rows.append(row)
        print(row, flush=True)
    return rows


def compare_lively(data: Path, imgsz: int, folder: Path) -> list[dict[str, Any]]:
    """Every task and family with made-up weights."""
    _, files = writable_copy(data, folder)
    images, rows = [cv2.imread(str(file)) for file in files], []
    batch = crops_of([ASSETS / "bus.jpg", ASSETS / "zidane.jpg"], imgsz)
    for name, kinds in LIVELY.items():
        checkpoint = lively_checkpoint(folder / f"{name}.pt", name, {0: "a", 1: "b", 2: "c"}, batch)
        for kind, args in kinds.items():
            # Not by export_onnx: which queries an untrained RT-DETR picks, rounding decides, and parity would fail.
            path = Path((RTDETR if name == "rtdetr" else YOLO)(checkpoint).export(format="onnx", imgsz=imgsz, **args))
            row = {"model": f"{name} (untrained)", "kind": kind, "data": data.parent.name, "images": len(images)}
            found = compare(path, images)
            if not found["detections"]:  # a model of made-up weights may be sure of nothing
                found = {"conf": 0.01, **compare(path, images, conf=0.01)}
            rows.append(row | found)
            print(rows[-1], flush=True)
    return rows


def main(words: Sequence[str]) -> None:
    """Read the command line, compare, and write a JSON file where output= says."""
    options = read_options(words)
    (data,), imgsz = options.pop(""), options.get("imgsz", 320)
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), Path(data).resolve()
        if "model" in options:
            rows = compare_trained(Path(options["model"]).resolve(), data, imgsz, folder)
        else:
            rows = compare_lively(data, imgsz, folder)
    if "output" in options:
        Path(options["output"]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
