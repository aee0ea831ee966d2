"""What is drawn: the labels of images, and what a model finds in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ultralytics.data.utils import img2label_paths, read_mask, verify_image_label

from ima_yolo.data_set import read_image
from ima_yolo.errors import IMAError
from ima_yolo.pictures.column import UNKNOWN, Column
from ima_yolo.pictures.tile import open_image
from ima_yolo.teachers.view import picked_bands


@dataclass(frozen=True)
class _Labels:
    """Labels of an image, in its pixels."""

    boxes: NDArray[Any]  # (N, 4) xyxy
    classes: NDArray[Any]  # (N,)
    outlines: list[NDArray[Any]]  # (K, 2) each; none where the labels are boxes
    keypoints: NDArray[Any] | None  # (N, K, 3)


def ground_truth_column(
    images: Sequence[Path],
    data: Mapping[str, Any],
    title: str = "Ground truth",
    single_cls: bool = False,
    task: str = "detect",
) -> Column:
    """The column of the labels of `images`, as Ultralytics reads them.

    Images without a label file, or with labels that Ultralytics leaves out, have no objects.

    Args:
        images: Image files.
        data: The data set as Ultralytics reads it: names, and where the task needs them kpt_shape, masks_dir and
            label_mapping.
        title: The header.
        single_cls: Whether every object counts as class 0.
        task: Ultralytics' word: boxes, masks, keypoints, turned boxes or classes of pixels are drawn.
    """
    names = dict(data["names"])
    if task == "semantic" and data.get("masks_dir"):
        nothing = [np.zeros((0, 4))] * len(images)
        pixels = [_class_map(Path(path), data) for path in images]
        return Column(title, nothing, [np.zeros(0, int)] * len(images), names, pixels=pixels)
    labels = [_read_labels(Path(path), data, task, single_cls) for path in images]
    is_outlined = task in ("segment", "semantic")
    return Column(
        title,
        [one.boxes for one in labels],
        [one.classes for one in labels],
        names,
        masks=[[[outline] for outline in one.outlines] for one in labels] if is_outlined else None,
        corners=[np.array(one.outlines).reshape(-1, 4, 2) for one in labels] if task == "obb" else None,
        keypoints=[one.keypoints for one in labels if one.keypoints is not None] if task == "pose" else None,
    )


def prediction_column(
    title: str,
    model_path: Path,
    images: Sequence[Path],
    imgsz: int,
    conf: float = 0.25,
    device: str = "cpu",
    task: str = "detect",
    channels: int = 3,
    bands: Sequence[int] | None = None,
) -> Column:
    """The column of what a model finds.

    Args:
        title: The header.
        model_path: A checkpoint or exported model that Ultralytics can load.
        images: Image files.
        imgsz: Side in pixels to which images are letterboxed.
        conf: Detections below this confidence (0-1) are left out.
        device: "cpu", "cuda" or any other device string of Ultralytics.
        task: Of an exported model; a checkpoint knows its own.
        channels: Of the data.
        bands: Which of them a teacher is shown, as in `ima_teacher_channels`; None as in `in_channels`.

    Raises:
        IMAError: An image cannot be read.
    """
    from ultralytics import YOLO

    model = YOLO(str(model_path), task=task)
    sources = model_input(model, images, channels, bands)
    found = model.predict(sources, imgsz=imgsz, conf=conf, device=device, verbose=False, save=False)
    results = [result.cpu().numpy() for result in found]
    names, first = results[0].names, results[0]
    if first.semantic_mask is not None:
        nothing = [np.zeros((0, 4))] * len(images)
        pixels = [np.asarray(result.semantic_mask.data).squeeze() for result in results]
        return Column(title, nothing, [np.zeros(0, int)] * len(images), names, pixels=pixels)
    boxes = [result.obb if result.boxes is None else result.boxes for result in results]
    return Column(
        title,
        [part.xyxy for part in boxes],
        [part.cls for part in boxes],
        names,
        [part.conf for part in boxes],
        masks=None if model.task != "segment" else [_outlines(result) for result in results],
        corners=None if first.obb is None else [result.obb.xyxyxyxy for result in results],
        keypoints=None if first.keypoints is None else [result.keypoints.data for result in results],
    )


def model_input(model: Any, images: Sequence[Path], channels: int, bands: Sequence[int] | None = None) -> list[Any]:
    """What Ultralytics' predictor is to be given, so that a model sees images as it did in training.

    Args:
        model: An Ultralytics `YOLO`.
        images: Image files.
        channels: Of the data.
        bands: Which of them a teacher is shown, as in `ima_teacher_channels`; None as in `in_channels`.

    Returns:
        The files' names, or where the predictor would read them otherwise than the data set does, (H, W, C) uint8 each.

    Raises:
        IMAError: An image cannot be read.
    """
    wanted = int(getattr(model.model, "yaml", {}).get("channels", channels))  # an exported model has no description
    shown = picked_bands(channels, wanted, bands)
    if channels == 3 and not shown:
        return [str(path) for path in images]
    return [_shown_to_model(path, channels, shown) for path in images]  # of a list, the predictor reads files in colour


def _shown_to_model(path: Path, channels: int, bands: Sequence[int]) -> NDArray[Any]:
    """Read an image, (H, W, `channels`), and pick those of its channels that a model is shown, if any are named.

    Channels are counted as in training, where colours run from red to blue; files and Ultralytics' predictor have them
    the other way.
    """
    image = read_image(path, channels)
    if image is None:
        raise IMAError(f"{path}: expected an image that can be read; check the file")
    if bands:
        image = _turned(_turned(image)[..., list(bands)])
    return np.ascontiguousarray(image)


def _turned(image: NDArray[Any]) -> NDArray[Any]:
    """BGR to RGB and back; other than three channels have one order only."""
    return image[..., ::-1] if image.shape[2] == 3 else image


def _outlines(result: Any) -> list[list[NDArray[Any]]]:
    """The outline of each object; an image without objects has no masks at all."""
    return [] if result.masks is None else [[outline] for outline in result.masks.xy]


def _read_labels(image: Path, data: Mapping[str, Any], task: str, single_cls: bool) -> _Labels:
    points, values = data.get("kpt_shape") or (0, 0)
    label = img2label_paths([str(image)])[0]
    asked = (str(image), label, "", task == "pose", len(data["names"]), points, values, single_cls)
    file, rows, shape, segments, keypoints, *_ = verify_image_label(asked)
    if file is None:
        return _Labels(np.zeros((0, 4)), np.zeros(0, int), [], np.zeros((0, points, 3)) if points else None)
    size = np.array(shape[::-1], float)  # width, height
    centre, extent = rows[:, 1:3] * size, rows[:, 3:5] * size
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    classes = np.zeros(len(rows), int) if single_cls else rows[:, 0].astype(int)
    if keypoints is not None:
        keypoints = np.concatenate([keypoints[..., :2] * size, keypoints[..., 2:]], axis=2)
    return _Labels(boxes, classes, [outline * size for outline in segments], keypoints)


def _class_map(image: Path, data: Mapping[str, Any]) -> NDArray[Any]:
    """Class of each pixel, (H, W), from the picture of classes beside an image; all unknown where there is none."""
    from PIL import Image

    file = img2label_paths([str(image)], label_dir=data["masks_dir"], suffix=".png")[0]
    if not Path(file).is_file():
        return np.full(open_image(image).size[::-1], UNKNOWN, np.uint8)
    with Image.open(file) as mask:
        classes = read_mask(file, mask.mode)
    table = np.arange(256)
    for raw, trained in (data.get("label_mapping") or {}).items():
        if 0 <= int(raw) < len(table):
            table[int(raw)] = UNKNOWN if trained in (None, "ignore_label") else int(trained)
    return table[classes.clip(0, UNKNOWN)].astype(np.uint8)
