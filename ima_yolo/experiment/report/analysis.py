"""What the detections of one model say beyond its mAP: precision by recall, sizes of objects, kinds of error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from ultralytics import YOLO

from ima_yolo.experiment.report.mistakes import KINDS, Objects, mistakes, total
from ima_yolo.pictures import ground_truth_column, model_input

LEAST = 0.001  # confidence from which detections count for average precision, as in Ultralytics' validation
SHOWN = 0.25  # confidence at which mistakes are counted and pictures drawn, as in Ultralytics' prediction
RECALLS = 101  # at which precision is kept, 0, 0.01 ... 1
MOST = 300  # detections an image
SIZES = ("small", "medium", "large")  # areas below 32 x 32 px, below 96 x 96 px, and above, as in COCO


def detections(
    model: Path,
    images: Sequence[Path],
    names: Mapping[int, str],
    imgsz: int,
    device: str | None,
    channels: int = 3,
    bands: Sequence[int] | None = None,
) -> list[Objects]:
    """Detect in images.

    Args:
        model: A checkpoint.
        images: Image files.
        names: The data's class names by index; a model that numbers them otherwise is read by name, and what it knows
            beyond them is left out.
        imgsz: Side in pixels to which images are letterboxed.
        device: As in `yolo predict`.
        channels: Of the data.
        bands: Which of them the model is shown, as in `ima_teacher_channels`.
    """
    index_of = {name: index for index, name in names.items()}
    keys = {"imgsz": imgsz, "conf": LEAST, "max_det": MOST, "device": device, "verbose": False, "save": False}
    found, yolo = [], YOLO(str(model), task="detect")
    for result in yolo.predict(model_input(yolo, images, channels, bands), stream=True, **keys):
        boxes = result.boxes.cpu().numpy()
        kinds = np.array([index_of.get(result.names[int(kind)], -1) for kind in boxes.cls], int)
        known = kinds >= 0
        found.append(Objects(boxes.xyxy[known], kinds[known], boxes.conf[known]))
    return found


def ground_truth(images: Sequence[Path], names: Mapping[int, str]) -> list[Objects]:
    """Labels of images, in pixels of each image."""
    column = ground_truth_column(images, {"names": names})
    return [Objects(boxes, kinds, np.zeros(0)) for boxes, kinds in zip(column.boxes, column.classes, strict=True)]


def analysis(truth: Sequence[Objects], found: Sequence[Objects], names: Mapping[int, str]) -> dict[str, Any]:
    """Measure detections against the truth.

    Args:
        truth: One an image.
        found: One an image, in the same order.
        names: Class names by index.

    Returns:
        `precision` by class at recalls 0, 0.01 ... 1 and IoU 0.5; `ap_of_size`, AP50-95 by size, None where there is no
        such object; `objects_of_size`; and `mistakes`, the counts at confidence 0.25.
    """
    counts = total(mistakes(there, seen, SHOWN) for there, seen in zip(truth, found, strict=True))
    areas = np.concatenate([box_areas(one.boxes) for one in truth]) if truth else np.zeros(0)
    bounds = np.digitize(areas, [32.0**2, 96.0**2])
    result: dict[str, Any] = {
        "images": len(truth),
        "mistakes": counts,
        "objects_of_size": {size: int((bounds == index).sum()) for index, size in enumerate(SIZES)},
    }
    precision = _precision(truth, found, names)  # (10 IoU, 101 recalls, K classes, all and 3 sizes)
    ap = [precision[..., 1 + index] for index in range(len(SIZES))]
    result["ap_of_size"] = {
        size: float(part[part > -1].mean()) if (part > -1).any() else None for size, part in zip(SIZES, ap, strict=True)
    }
    result["precision"] = {
        name: [round(float(value), 4) for value in precision[0, :, index, 0]]
        for index, name in enumerate(names.values())
        if (precision[0, :, index, 0] > -1).all()
    }
    return result


def is_analysis(found: Any) -> bool:
    """Whether what was read from a file is as `analysis` returns it."""
    try:
        numbers = [
            *(found["mistakes"][key] for key in ("objects", *KINDS)),
            *(found["objects_of_size"][size] for size in SIZES),
            *(score for size in SIZES if (score := found["ap_of_size"][size]) is not None),
            *(value for row in found["precision"].values() for value in row),
        ]
        sides = {len(row) for row in found["precision"].values()}
    except (AttributeError, LookupError, TypeError):
        return False
    return sides <= {RECALLS} and all(isinstance(number, (int, float)) for number in numbers)


def box_areas(boxes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Areas of (N, 4) xyxy boxes."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _precision(truth: Sequence[Objects], found: Sequence[Objects], names: Mapping[int, str]) -> np.ndarray[Any, Any]:
    ids = {index: place for place, index in enumerate(names)}
    annotations = [
        {"id": 0, "image_id": image, "category_id": ids[int(kind)], "bbox": box, "area": area, "iscrowd": 0}
        for image, one in enumerate(truth)
        for box, kind, area in zip(_corner_and_size(one.boxes), one.classes, box_areas(one.boxes), strict=True)
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    said = [
        {"image_id": image, "category_id": ids[int(kind)], "bbox": box, "score": float(score)}
        for image, one in enumerate(found)
        for box, kind, score in zip(_corner_and_size(one.boxes), one.classes, one.scores, strict=True)
    ]
    categories = [{"id": ids[index], "name": name} for index, name in names.items()]
    api = COCO({"images": [{"id": i} for i in range(len(truth))], "categories": categories, "annotations": annotations})
    judge = COCOeval_faster(api, api.loadRes(said), "bbox", print_function=lambda *_: None)
    judge.params.maxDets = [MOST]
    judge.evaluate()
    judge.accumulate()
    return np.asarray(judge.eval["precision"])[..., 0]


def _corner_and_size(boxes: np.ndarray[Any, Any]) -> list[list[float]]:
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return [[float(value) for value in row] for row in np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)]
