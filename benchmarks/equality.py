"""Our runtime against Ultralytics' predictor on the same ONNX files: the same detections, and the same mAP.

    python benchmarks/equality.py ../shared/data/bccd/data.yaml imgsz=224 model=../shared/weights/bccd_yolo26s.pt
    python benchmarks/equality.py ../shared/data/coco128/data.yaml imgsz=320

With model= that checkpoint is compared as each kind of graph that its task and family have, accuracy included. Without
it, untrained but lively models of every task and family are compared, whose detections vary but whose mAP says nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
import yaml
from lively import crops_of, lively_checkpoint
from ultralytics import RTDETR, YOLO
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.models.yolo.semantic import SemanticSegmentationValidator
from ultralytics.utils import ASSETS

from ima_yolo.cli import read_options
from ima_yolo.export import Detector, export_onnx
from ima_yolo.export.metadata import GraphKind
from ima_yolo.export.results import ClassMap, Detections
from ima_yolo.host import load_model, task_of, unhurried_nms
from ima_yolo.lists import listed

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
FEW = 100
"""Fewer detections than this say little; those of a lower score are compared then."""

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


def rows_of(found: Any) -> np.ndarray:
    """The detections in a result of either reader, (N, 6); of a semantic model its class map."""
    if isinstance(found, ClassMap):
        return found.classes
    if isinstance(found, Detections):
        return np.column_stack([found.boxes, found.scores, found.classes])
    if found.semantic_mask is not None:
        return np.asarray(found.semantic_mask.data)
    boxes = found.obb if found.obb is not None else found.boxes
    return np.column_stack([np.asarray(boxes.xyxy), np.asarray(boxes.conf), np.asarray(boxes.cls)])


def compare(path: Path, images: Sequence[np.ndarray], **thresholds: Any) -> dict[str, Any]:
    """Compare both readers of one file on pictures.

    Returns:
        The number of detections (of pixels for a semantic model) and the share of them that is the same in both, None
        where there is none.
    """
    detector, theirs = reader("ours", path), reader("theirs", path)
    count = same = 0
    for image in images:
        expected, found = rows_of(theirs(image, verbose=False, **thresholds)[0]), rows_of(detector(image, **thresholds))
        if detector.metadata.kind is GraphKind.DENSE:
            count, same = count + expected.size, same + int((expected == found).sum())
        else:
            count, same = count + max(len(expected), len(found)), same + match(expected, found)
    return {"detections": count, "same": same / count if count else None}


Given = Mapping[str, tuple[np.ndarray, np.ndarray | None]]
"""Name of a picture -> its detections, (N, 6) in pixels of the picture, or its class map, (H, W); and masks, (N, h, w)
in pixels of the network input, of a segmentation model."""


class GivenValidator(DetectionValidator):
    """Ultralytics' validator, fed with what one of the readers found in place of the graph's output."""

    given: ClassVar[Given] = {}

    def postprocess(self, preds: Any) -> Any:
        """Leave the graph's output alone; it is not used."""
        return preds

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        """Bring the given detections to the pixels in which the validator compares."""
        mapped = []
        for file, (gain, pad) in zip(batch["im_file"], batch["ratio_pad"], strict=True):
            found, masks = self.given[Path(file).name]
            rows = torch.from_numpy(found.astype(np.float32))
            boxes = rows[:, :4] * torch.tensor([gain[1], gain[0]] * 2) + torch.tensor([*pad, *pad])
            mapped.append({"bboxes": boxes, "conf": rows[:, 4], "cls": rows[:, 5], "extra": rows[:, 6:]})
            if masks is not None:
                mapped[-1]["masks"] = quarter(masks, batch["img"].shape[2:])
        super().update_metrics(mapped, batch)


class GivenMaskValidator(GivenValidator, SegmentationValidator):
    """The same for masks."""


class GivenMapValidator(SemanticSegmentationValidator):
    """The same for class maps."""

    given: ClassVar[Given] = {}

    def update_metrics(self, preds: Any, batch: dict[str, Any]) -> None:
        """Bring the given maps to the pixels in which the validator compares; what lies beside them is ignored."""
        target = torch.zeros_like(batch["semantic_mask"])
        for row, file, (gain, pad) in zip(target, batch["im_file"], batch["ratio_pad"], strict=True):
            found, (left, top) = self.given[Path(file).name][0], (round(value) for value in pad)
            height, width = (round(side * share) for side, share in zip(found.shape, gain, strict=True))
            small = cv2.resize(found.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            row[top : top + height, left : left + width] = torch.from_numpy(small.astype(np.int32))
        super().update_metrics(target, batch)


def quarter(masks: np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """Bring masks, (N, h, w) bool, to the quarter of the input's sides at which the validator compares them."""
    if masks.shape[1:] != tuple(shape):
        raise ValueError(f"masks of {masks.shape[1:]} px for an input of {tuple(shape)} px")
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(masks[:, None].astype(np.float32)), 4)
    return (small[:, 0] > 0.5).to(torch.uint8)


def masks_of(found: Any) -> np.ndarray | None:
    """Masks of a result of either reader, (N, h, w) bool in pixels of the network input; None where it has none."""
    if isinstance(found, Detections):
        if found.masks is None:
            return None
        none = np.zeros((0, *found.masks.place.target), bool)
        return np.stack([found.masks.in_network(index) for index in range(len(found))]) if len(found) else none
    return None if found.masks is None else np.asarray(found.masks.data).astype(bool)


VALIDATORS = {"detect": GivenValidator, "segment": GivenMaskValidator, "semantic": GivenMapValidator}
FIGURES = {"mAP50-95(B)": "mAP50-95", "mAP50-95(M)": "mask mAP50-95", "mIoU": "mIoU"}


def accuracy_of(path: Path, task: str, data: Path, given: Given, imgsz: int, folder: Path) -> dict[str, float]:
    """What Ultralytics' validator says of given detections, by the names of `FIGURES`."""
    validator: Any = VALIDATORS[task]
    validator.given = given
    keys = {"imgsz": imgsz, "batch": 1, "workers": 0, "plots": False, "verbose": False, "project": str(folder)}
    figures = YOLO(path, task=task).val(validator=validator, data=str(data), **keys).results_dict
    named = {key.split("/")[-1]: float(value) for key, value in figures.items()}
    return {FIGURES[key]: value for key, value in named.items() if key in FIGURES}


def writable_copy(data: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Copy a data set, since Ultralytics writes caches beside it; gives its yaml and its validation pictures."""
    copy = folder / data.parent.name / data.name
    if not copy.exists():
        shutil.copytree(data.parent, copy.parent)
    pictures = sorted((copy.parent / yaml.safe_load(copy.read_text())["val"]).glob("*.jpg"))
    return copy, pictures


def kinds_of(model: Path) -> dict[str, dict[str, Any]]:
    """The kinds of graph that a checkpoint can become."""
    loaded, _ = load_model(model, "model")
    task = task_of(loaded)
    if task == "semantic":
        return {"dense": {}}
    return {"queries": {}} if type(loaded.model[-1]).__name__ == "RTDETRDecoder" else KINDS


def compare_trained(model: Path, data: Path, imgsz: int, folder: Path) -> list[dict[str, Any]]:
    """Each kind of graph of one trained model, with its accuracy at conf 0.001."""
    copy, files = writable_copy(data, folder)
    images = [cv2.imread(str(file)) for file in files]
    rows = []
    for kind, args in kinds_of(model).items():
        low = {"conf": 0.001} if kind == "nms-embedded" else {}
        path = export_onnx(model, folder / f"{kind}.onnx", files[:2], imgsz=imgsz, **args, **low).path
        task = Detector(path).metadata.task
        row = {"model": model.stem, "task": task, "kind": kind, "data": data.parent.name, "images": len(images)}
        row |= compare(path, images, conf=0.25)
        for who in ("theirs", "ours"):
            found = {f.name: given_by(who, path, i) for f, i in zip(files, images, strict=True)}
            figures = accuracy_of(path, task, copy, found, imgsz, folder)
            row |= {f"{name} {who}": value for name, value in figures.items()}
        rows.append(row)
        print(row, flush=True)
    return rows


@cache
def reader(who: str, path: Path) -> Any:
    """One of the readers of a file, opened once."""
    if who == "ours":
        return Detector(path)
    metadata = Detector(path).metadata
    return RTDETR(path) if metadata.kind is GraphKind.QUERIES else YOLO(path, task=metadata.task)


def given_by(who: str, path: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """What one of the readers finds in a picture at conf 0.001, as the validators above take it."""
    if who == "theirs":
        return rows_of(result := reader(who, path)(image, verbose=False, conf=0.001)[0]), masks_of(result)
    found = reader(who, path)(image, conf=0.001)
    return rows_of(found), None if isinstance(found, ClassMap) else masks_of(found)


def compare_lively(data: Path, imgsz: int, folder: Path, models: Sequence[str]) -> list[dict[str, Any]]:
    """Tasks and families with made-up weights."""
    _, files = writable_copy(data, folder)
    images, rows = [cv2.imread(str(file)) for file in files], []
    batch = crops_of([ASSETS / "bus.jpg", ASSETS / "zidane.jpg"], imgsz)
    for name in models:
        checkpoint = lively_checkpoint(folder / f"{name}.pt", name, {0: "a", 1: "b", 2: "c"}, batch)
        for kind, args in LIVELY[name].items():
            low = {"conf": 0.01} if kind == "nms-embedded" else {}
            # Not by export_onnx: which queries an untrained RT-DETR picks, rounding decides, and parity would fail.
            path = Path(
                (RTDETR if name == "rtdetr" else YOLO)(checkpoint).export(format="onnx", imgsz=imgsz, **args, **low)
            )
            row = {"model": f"{name} (untrained)", "kind": kind, "data": data.parent.name, "images": len(images)}
            reader.cache_clear()  # of an earlier file of this name
            found = compare(path, images, conf=0.25)
            if found["detections"] < FEW:  # a model of made-up weights may be sure of nothing
                found = {"conf": 0.01, **compare(path, images, conf=0.01)}
            rows.append(row | found)
            print(rows[-1], flush=True)
    return rows


def main(words: Sequence[str]) -> None:
    """Read the command line, compare, and write a JSON file where output= says."""
    options = read_options(words)
    (data,), imgsz = options.pop(""), options.get("imgsz", 320)
    with tempfile.TemporaryDirectory() as name, unhurried_nms():
        folder, data = Path(name), Path(data).resolve()
        if "model" in options:
            rows = compare_trained(Path(options["model"]).resolve(), data, imgsz, folder)
        else:
            rows = compare_lively(data, imgsz, folder, listed(options.get("models", ",".join(LIVELY))))
    if "output" in options:
        Path(options["output"]).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
