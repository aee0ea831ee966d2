"""What one source says about every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima_yolo.errors import IMAError

UNKNOWN = 255  # class of a pixel that nobody labelled, as in Ultralytics


@dataclass(frozen=True)
class Column:
    """One column of the grid: what one source says about every image, in pixels of that image.

    Attributes:
        title: The header, in ASCII.
        boxes: For each image (N, 4) xyxy.
        classes: For each image (N,) class indices, keys of `names`.
        names: Class index to name; colours go by name, so sources with other indices stay comparable.
        scores: For each image (N,) confidences 0-1, or None where there are none, as in ground truth.
        subtitle: A line below the title, for instance the model's accuracy.
        masks: For each image the outlines of N masks, each a list of (K, 2) points.
        corners: For each image (N, 4, 2) of turned boxes, drawn instead of `boxes`.
        keypoints: For each image (N, K, 2 or 3) x, y, visibility.
        pixels: For each image the class of each pixel, (H, W), 255 where it is not known.
    """

    title: str
    boxes: Sequence[NDArray[Any]]
    classes: Sequence[NDArray[Any]]
    names: Mapping[int, str]
    scores: Sequence[NDArray[Any]] | None = None
    subtitle: str = ""
    masks: Sequence[Sequence[Sequence[NDArray[Any]]]] | None = None
    corners: Sequence[NDArray[Any]] | None = None
    keypoints: Sequence[NDArray[Any]] | None = None
    pixels: Sequence[NDArray[Any]] | None = None

    def check(self, images: int) -> None:
        """Refuse a column that does not speak of every image.

        Raises:
            IMAError: If it does not.
        """
        parts = (self.boxes, self.classes, self.scores, self.masks, self.corners, self.keypoints, self.pixels)
        if {len(part) for part in parts if part is not None} != {images}:
            raise IMAError(f"column {self.title!r}: expected boxes, classes and scores for each of {images} images")

    def seen(self) -> set[str]:
        """Names of the classes that are found anywhere."""
        found = {int(index) for part in (*self.classes, *(self.pixels or ())) for index in np.unique(part)}
        return {self.names[index] for index in found if index in self.names}
