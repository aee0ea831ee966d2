"""What was found in one picture, and its forms: dictionaries, YOLO label lines, COCO records, a drawn picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .drawing import as_shown, paint_boxes, paint_classes
from .masks import Masks
from .rotated import corners

DECIMALS = 5
"""Digits behind the point in COCO records."""


COCO_LEFT_OUT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Numbers from 1 to 90 that none of COCO's 80 classes has."""


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first.

    Attributes:
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the picture, clipped to it; not clipped are RT-DETR's and,
            of a model of rotated boxes, the upright ones around them.
        scores: (N,) float32, 0 to 1.
        classes: (N,) int64, class indices.
        names: Class index to class name.
        shape: Height and width of the picture in pixels.
        masks: The objects' masks, of a segmentation model.
        keypoints: (N, K, 2 or 3) float32, x, y in pixels and visibility 0 to 1, of a pose model.
        rotated: (N, 5) float32, cx, cy, w, h in pixels and angle in radians, of a model of rotated boxes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: dict[int, str]
    shape: tuple[int, int]
    masks: Masks | None = None
    keypoints: np.ndarray | None = None
    rotated: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.boxes)

    def label(self, index: int) -> str:
        """Class name of one class index; the index itself where the file names fewer classes."""
        return self.names.get(int(index), str(index))

    def summary(self) -> str:
        """Count by class, such as "3 RBC, 1 WBC"."""
        classes, counts = np.unique(self.classes, return_counts=True)
        return ", ".join(f"{n} {self.label(c)}" for c, n in zip(classes, counts, strict=True)) or "(no detections)"

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dictionary a detection, fit for JSON.

        Each holds name, class, confidence and box (x1, y1, x2, y2 in pixels; of rotated boxes four corners, x1 to y4),
        and where the model gives them segments (the mask's outlines as one polygon) and keypoints, as lists of x and y.
        """
        points = self.boxes.reshape(-1, 2, 2) if self.rotated is None else corners(self.rotated)
        records = []
        for index, (score, c) in enumerate(zip(self.scores.tolist(), self.classes.tolist(), strict=True)):
            box = {f"{axis}{n}": value for n, xy in enumerate(points[index].tolist(), 1) for axis, value in _xy(xy)}
            record: dict[str, Any] = {"name": self.label(c), "class": c, "confidence": score, "box": box}
            if self.masks is not None:
                record["segments"] = _columns(self.masks.polygon(index), "xy")
            if self.keypoints is not None:
                record["keypoints"] = _columns(self.keypoints[index], ("x", "y", "visible"))
            records.append(record)
        return records

    def to_yolo_txt(self, with_conf: bool = False) -> str:
        """YOLO label lines, coordinates as shares of the picture, then the score if asked.

        A line holds the class and centre x, centre y, width, height; of a rotated box its four corners; of a mask its
        outlines as one polygon (`Masks.polygon`), without which the line is left out; after a box its keypoints.

        Returns:
            One line a detection, each ended by a newline; "" without detections.
        """
        lines = []
        for index, numbers in enumerate(self._shares()):
            if len(numbers):
                score = [self.scores[index]] if with_conf else []
                lines.append(" ".join(f"{value:g}" for value in (self.classes[index], *numbers, *score)) + "\n")
        return "".join(lines)

    def _shares(self) -> list[np.ndarray]:
        """The numbers of each label line between class and score; none where a mask has no outline."""
        size = np.array([self.shape[1], self.shape[0]], np.float32)
        if self.rotated is not None:
            return list((corners(self.rotated) / size).reshape(-1, 8))  # (N, 4, 2) -> (N, 8)
        if self.masks is not None:
            return [(self.masks.polygon(index) / size).ravel() for index in range(len(self))]
        low, high = self.boxes[:, :2] / size, self.boxes[:, 2:] / size
        table = [(low + high) / 2, high - low]
        if self.keypoints is not None:
            shares = self.keypoints.copy()
            shares[..., :2] /= size
            table.append(shares.reshape(len(self), -1))  # (N, K, D) -> (N, K * D)
        return list(np.concatenate(table, axis=1))

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Records of the COCO results format.

        category_id is the class index plus 1, or of COCO's own 80 classes COCO's number, as in `yolo val save_json`;
        bbox is x, y, width, height in pixels, segmentation the outlines of a mask or of a rotated box, keypoints
        x, y, visibility one after the other.
        """
        records = []
        corner, size = self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]
        for index, box in enumerate(np.concatenate([corner, size], axis=1)):
            record: dict[str, Any] = {
                "image_id": image_id,
                "category_id": category_id(int(self.classes[index]), self.names),
                "bbox": _rounded(box),
                "score": round(float(self.scores[index]), DECIMALS),
            }
            if self.masks is not None:
                record["segmentation"] = [_rounded(line) for line in self.masks.polygons(index)]
            if self.rotated is not None:
                record["segmentation"] = [_rounded(corners(self.rotated[index : index + 1]))]
            if self.keypoints is not None:
                points = self.keypoints[index]
                visible = points[:, 2:] if points.shape[1] == 3 else np.ones((len(points), 1))
                record["keypoints"] = _rounded(np.concatenate([points[:, :2], visible], axis=1))
            records.append(record)
        return records

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Draw boxes or rotated boxes, masks, keypoints, names and scores.

        Args:
            image: The picture that these detections belong to, in any form that a `Detector` takes; it is not changed.

        Returns:
            A drawn copy, (H, W, 3) BGR uint8.

        Raises:
            IMAError: The array is no picture.
        """
        texts = [f"{self.label(c)} {score:.2f}" for c, score in zip(self.classes, self.scores, strict=True)]
        outlines = self.boxes if self.rotated is None else corners(self.rotated)
        polygons = None if self.masks is None else [self.masks.polygons(index) for index in range(len(self))]
        return paint_boxes(as_shown(image), outlines, self.classes.tolist(), texts, polygons, self.keypoints)


@dataclass(frozen=True)
class ClassMap:
    """What a semantic model says of every pixel of one picture.

    Attributes:
        classes: (H, W) uint8 class indices (int32 where the model has more than 256 classes); 255 where `classes=` left
            a pixel out. A model of a single class gives 1 for it and 0 for the rest.
        names: Class index to class name.
        shape: Height and width of the picture in pixels.
    """

    classes: np.ndarray
    names: dict[int, str]
    shape: tuple[int, int]

    def shares(self) -> dict[int, float]:
        """Class index to its share of the pixels, for each class that is there."""
        found, counts = np.unique(self.classes, return_counts=True)
        shift = 1 if len(self.names) == 1 else 0
        shares = zip((found.astype(int) - shift).tolist(), (counts / self.classes.size).tolist(), strict=True)
        return {index: share for index, share in shares if index in self.names}

    def summary(self) -> str:
        """Shares by class, such as "cell 12.5%"."""
        return ", ".join(f"{self.names[c]} {share:.1%}" for c, share in self.shares().items()) or "(no classes)"

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dictionary a class that is there: name, class, pixel_ratio (0 to 1); fit for JSON."""
        return [{"name": self.names[c], "class": c, "pixel_ratio": share} for c, share in self.shares().items()]

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Tint each pixel by its class in a copy of `image`, which may have any form that a `Detector` takes."""
        hidden = {0, 255} if len(self.names) == 1 else {255}
        return paint_classes(
            as_shown(image), self.classes, [c for c in np.unique(self.classes).tolist() if c not in hidden]
        )


Result = Detections | ClassMap
"""What a `Detector` gives for one picture."""


def category_id(index: int, names: Mapping[int, str]) -> int:
    """The number of a class in COCO's formats, as Ultralytics' validator writes it.

    Args:
        index: Class index.
        names: Class index to class name; COCO's own are told by their count, the first and the last.

    Returns:
        COCO's number, 1 to 90, of its classes; else the index plus 1.
    """
    number = index + 1
    if (len(names), names.get(0), names.get(79)) == (80, "person", "toothbrush"):
        for left_out in COCO_LEFT_OUT:
            number += number >= left_out
    return number


def _xy(point: Sequence[float]) -> list[tuple[str, float]]:
    return list(zip("xy", point, strict=True))


def _columns(points: np.ndarray, names: Sequence[str]) -> dict[str, list[float]]:
    """(K, D) -> one list a column."""
    return {name: column.tolist() for name, column in zip(names, points.T, strict=False)}


def _rounded(values: np.ndarray) -> list[float]:
    return [round(value, DECIMALS) for value in values.astype(float).ravel().tolist()]
