"""A picture becomes the network's input: BGR, grey or other channels in uint8, of any size -> letterboxed float32."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ima_yolo.errors import IMAError

PADDING = 114
"""Grey level of the border, 0 to 255: the value that Ultralytics trains with."""

GREY = np.float32(PADDING) / np.float32(255)

MOST_AT_ONCE = 128
"""Channels that OpenCV 5 resizes and splits at once; one by one gives the same numbers, several times slower."""

CONVERSIONS = {
    (1, 3): cv2.COLOR_GRAY2BGR,
    (4, 3): cv2.COLOR_BGRA2BGR,
    (3, 1): cv2.COLOR_BGR2GRAY,
    (4, 1): cv2.COLOR_BGRA2GRAY,
}
"""Channels of a picture and of a model to OpenCV's conversion."""


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
    def fit(cls, image_shape: tuple[int, int], target: tuple[int, int], stride: int | None = None) -> Letterbox:
        """Fit a picture into the network input, enlarging it if it is small.

        Args:
            image_shape: Height and width of the picture in pixels.
            target: Height and width of the network input in pixels.
            stride: Where the graph takes inputs of any size: padding ends at the next multiple of it, in place of
                `target`.
        """
        gain = min(target[0] / image_shape[0], target[1] / image_shape[1])
        # A very thin picture keeps at least one pixel on its short side.
        height, width = (max(round(side * gain), 1) for side in image_shape)
        if stride is not None:
            target = (height + (target[0] - height) % stride, width + (target[1] - width) % stride)
        # With an odd rest the spare row or column goes below or to the right.
        top, left = round((target[0] - height) / 2 - 0.1), round((target[1] - width) / 2 - 0.1)
        return cls(image_shape, target, width, height, left, top)

    @classmethod
    def stretch(cls, image_shape: tuple[int, int], target: tuple[int, int]) -> Letterbox:
        """Fill the network input without keeping the picture's proportions, as RT-DETR wants it."""
        return cls(image_shape, target, target[1], target[0], 0, 0)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the network input that the picture fills."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def paint(self, image: np.ndarray, planes: np.ndarray) -> None:
        """Write a picture, (H, W, C) uint8, into its window of `planes`, (C, *target) float32, as 0 to 1.

        Of three channels, BGR becomes RGB; any other number keeps its order.
        """
        rows, columns = self.window
        inside = planes[:, rows, columns]
        # One plane after the other: several times faster than a transposed view of the whole picture.
        for plane, channel in zip(inside[::-1] if len(planes) == 3 else inside, self._channels(image), strict=True):
            np.divide(channel, np.float32(255), out=plane)

    def _channels(self, image: np.ndarray) -> Sequence[np.ndarray]:
        """The channels of a picture, (H, W, C), at their size in the network input: C of (height, width)."""
        is_resized = (self.height, self.width) != self.image_shape
        if image.shape[2] <= MOST_AT_ONCE:
            return cv2.split(self._resized(image) if is_resized else image)
        channels = (np.ascontiguousarray(image[..., index]) for index in range(image.shape[2]))
        return [self._resized(channel) if is_resized else channel for channel in channels]

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_LINEAR)

    def blob(self, image: np.ndarray) -> np.ndarray:
        """Turn a picture, (H, W, C) uint8, into the network input, (1, C, *target) float32 in 0 to 1; see `paint`."""
        blob = np.full((1, image.shape[2], *self.target), GREY, np.float32)
        self.paint(image, blob[0])
        return blob

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes, (N, 4) xyxy in network pixels, back to the picture's pixels, clipped to its borders."""
        return self.points_to_image(boxes.reshape(-1, 2)).reshape(-1, 4)  # (N, 4) -> (2N, 2) -> (N, 4)

    def points_to_image(self, points: np.ndarray) -> np.ndarray:
        """Map points, (..., 2) x and y in network pixels, back to the picture's pixels, clipped to its borders."""
        height, width = self.image_shape
        offset = np.array([self.left, self.top], np.float32)
        return np.clip((points - offset) / self.gain, 0, np.array([width, height], np.float32))

    def rotated_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Map rotated boxes, (N, 5) cx, cy, w, h, angle in network pixels, back to the picture's pixels."""
        moved = boxes.copy()
        moved[:, :2] -= np.array([self.left, self.top], np.float32)
        moved[:, :4] /= np.tile(self.gain, 2)
        return moved

    @property
    def gain(self) -> np.ndarray:
        """Network pixels a picture's pixel in x and y, (2,) float32; they differ by rounding, or where stretched."""
        height, width = self.image_shape
        return np.array([self.width / width, self.height / height], np.float32)


class InputBuffer(threading.local):
    """The network input of one thread: its memory serves one batch after the other, its padding is painted once."""

    def __init__(self, channels: int = 3) -> None:
        self.channels = channels
        self._array = np.empty((0, channels, 0, 0), np.float32)
        self._places: list[Letterbox | None] = []

    def fill(self, images: Sequence[np.ndarray], places: Sequence[Letterbox], batch: int) -> np.ndarray:
        """Paint pictures into the input.

        Args:
            images: (H, W, C) uint8 each, BGR where C is 3.
            places: Where each lies; one target for all.
            batch: Pictures that the graph takes; what is left over holds earlier pictures.

        Returns:
            (batch, C, *target) float32, valid until the next call by the same thread.
        """
        shape = (batch, self.channels, *places[0].target)
        if self._array.shape != shape:
            self._array, self._places = np.full(shape, GREY, np.float32), [None] * batch
        for index, (image, place) in enumerate(zip(images, places, strict=True)):
            before = self._places[index]
            if before is not None and before.window != place.window:
                self._array[index] = GREY
            place.paint(image, self._array[index])
            self._places[index] = place
        return self._array


def as_input(image: np.ndarray, channels: int = 3) -> np.ndarray:
    """Bring an array as OpenCV reads it to what a model takes, (H, W, `channels`) uint8, BGR where that is 3.

    Args:
        image: For a model of grey or colour pictures (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, of which grey
            is made colour, colour grey, and alpha dropped; for any other (H, W, `channels`). In uint8 or uint16, of
            which the upper 8 bits are kept.
        channels: That the model takes.

    Raises:
        IMAError: Another shape or type, or no pixels.
    """
    if not isinstance(image, np.ndarray):
        raise IMAError(
            f"image is a {type(image).__name__}, expected a numpy array as cv2.imread gives it (None where it cannot "
            "read one); several go to `detect`"
        )
    given = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if given not in ((1, 3, 4) if channels in (1, 3) else (channels,)) or not image.size:
        shapes = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)" if channels in (1, 3) else f"(H, W, {channels})"
        raise IMAError(f"image has shape {image.shape}, expected {shapes} with pixels")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise IMAError(f"image has type {image.dtype}, expected uint8 or uint16 (0 to 255 or 0 to 65535)")
    if given != channels:
        image = cv2.cvtColor(image, CONVERSIONS[given, channels])
    return image[..., None] if image.ndim == 2 else image
