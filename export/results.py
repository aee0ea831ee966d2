"""Detections of one picture, and their forms: dictionaries, YOLO label lines, a drawn picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

GOLDEN_RATIO = 0.61803398875


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first.

    Attributes:
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the picture, clipped to it.
        scores: (N,) float32, 0 to 1.
        classes: (N,) int64, class indices.
        names: Class index to class name.
        shape: Height and width of the picture in pixels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    names: dict[int, str]
    shape: tuple[int, int]

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
        """One plain dictionary a detection: name, class, confidence, box (x1, y1, x2, y2 in pixels); fit for JSON."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.classes.tolist(), strict=True)
        return [
            {"name": self.label(c), "class": c, "confidence": score, "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}}
            for (x1, y1, x2, y2), score, c in rows
        ]

    def to_yolo_txt(self, with_conf: bool = False) -> str:
        """YOLO label lines: class, centre x, centre y, width, height as shares of the picture, then the score if asked.

        Returns:
            One line a detection, each ended by a newline; "" without detections.
        """
        size = np.array([self.shape[1], self.shape[0]], np.float32)
        low, high = self.boxes[:, :2] / size, self.boxes[:, 2:] / size
        columns = [self.classes[:, None], (low + high) / 2, high - low]
        table = np.concatenate([*columns, self.scores[:, None]] if with_conf else columns, axis=1)
        return "".join(" ".join(f"{value:g}" for value in row) + "\n" for row in table.tolist())

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Draw boxes, names and scores.

        Args:
            image: (H, W, 3) BGR uint8, the picture that these detections belong to; it is not changed.

        Returns:
            A drawn copy.
        """
        canvas = image.copy()
        line = max(round(sum(image.shape[:2]) / 2 * 0.003), 1)
        # The best is drawn last, on top.
        for index in reversed(range(len(self))):
            x1, y1, x2, y2 = (int(value) for value in self.boxes[index].round())
            colour = _colour(int(self.classes[index]))
            cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA)
            _write(canvas, f"{self.label(self.classes[index])} {self.scores[index]:.2f}", (x1, y1), colour, line)
        return canvas


def _colour(index: int) -> tuple[int, int, int]:
    """A bright BGR colour; steps of the golden ratio keep neighbouring classes far apart on the colour circle."""
    hue = round(index * GOLDEN_RATIO % 1 * 179)
    pixel = cv2.cvtColor(np.array([[[hue, 220, 220]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def _write(canvas: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, int, int], line: int) -> None:
    """Write on a filled tab above `corner`, or below it where the picture ends."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.2 + line / 6
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    x = max(min(corner[0], canvas.shape[1] - width), 0)
    bottom = corner[1] if corner[1] - height >= 4 else corner[1] + height + 4
    cv2.rectangle(canvas, (x, bottom - height - 4), (x + width, bottom), colour, cv2.FILLED)
    dark = sum(colour) < 384
    cv2.putText(canvas, text, (x, bottom - 2), font, scale, (255,) * 3 if dark else (0,) * 3, 1, cv2.LINE_AA)
