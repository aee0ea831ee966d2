"""A picture becomes the network's input: BGR uint8 of any size -> letterboxed RGB float32."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ima_yolo.errors import IMAError

PADDING = 114
"""Grey level of the border, 0 to 255: the value that Ultralytics trains with."""


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies inside the network input: resized by one factor, centred, rounded as Ultralytics rounds.

    Attributes:
        image_shape: Height and width of the picture in pixels.
        target: Height and width of the network input in pixels.
        width: Width of the resized picture in pixels.
        height: Height of the resized picture in pixels.
        left: Columns of padding left of it.
        top: Rows of padding above it.
    """

    image_shape: tuple[int, int]
    target: tuple[int, int]
    width: int
    height: int
    left: int
    top: int

    @classmethod
    def fit(cls, image_shape: tuple[int, int], target: tuple[int, int]) -> Letterbox:
        """Fit a picture of `image_shape` (height, width) into `target` (height, width), enlarging it if it is small."""
        gain = min(target[0] / image_shape[0], target[1] / image_shape[1])
        # A very thin picture keeps at least one pixel on its short side.
        height, width = (max(round(side * gain), 1) for side in image_shape)
        # With an odd rest the spare row or column goes below or to the right.
        top, left = round((target[0] - height) / 2 - 0.1), round((target[1] - width) / 2 - 0.1)
        return cls(image_shape, target, width, height, left, top)

    def blob(self, image: np.ndarray) -> np.ndarray:
        """Turn a picture, (H, W, 3) BGR uint8, into the network input, (1, 3, *target) RGB float32 in 0 to 1."""
        if (self.height, self.width) != self.image_shape:
            image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        blob = np.full((1, 3, *self.target), np.float32(PADDING) / np.float32(255), np.float32)
        window = blob[0, :, self.top : self.top + self.height, self.left : self.left + self.width]
        # One plane after the other: several times faster than a transposed view of the whole picture.
        for plane, channel in zip(window[::-1], cv2.split(image), strict=True):
            np.divide(channel, np.float32(255), out=plane)
        return blob

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes, (N, 4) xyxy in network pixels, back to the picture's pixels, clipped to its borders."""
        image_height, image_width = self.image_shape
        gain = np.array([self.width / image_width, self.height / image_height] * 2, np.float32)
        offset = np.array([self.left, self.top] * 2, np.float32)
        limit = np.array([image_width, image_height] * 2, np.float32)
        return np.clip((boxes - offset) / gain, 0, limit)


def as_bgr(image: np.ndarray) -> np.ndarray:
    """Bring an array as OpenCV reads it to (H, W, 3) BGR uint8.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16; alpha is dropped, of 16 bits the
            upper 8 are kept.

    Raises:
        IMAError: Another shape or type, or no pixels.
    """
    if not isinstance(image, np.ndarray):
        raise IMAError(f"image is a {type(image).__name__}, expected a numpy array as cv2.imread gives it")
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if channels not in (1, 3, 4) or not image.size:
        raise IMAError(f"image has shape {image.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with pixels")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise IMAError(f"image has type {image.dtype}, expected uint8 or uint16 (0 to 255 or 0 to 65535)")
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR) if channels == 4 else image
