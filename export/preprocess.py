"""A picture becomes the network's input: BGR, grey or other channels in uint8, of any size -> letterboxed float32."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from ima_yolo.errors import IMAError

PADDING = 114
"""Grey level of the border, 0 to 255: the value that Ultralytics trains with."""

SHARES = (np.arange(256, dtype=np.float32) / np.float32(255))[None]
"""What each value of a pixel becomes, (1, 256) float32 in 0 to 1: looking it up is faster than dividing."""

GREY = SHARES[0, PADDING]

KNOWN_PLACES = 256
"""Placements kept of the last shapes of pictures: working one out takes a tenth of the letterbox's time at 224 px."""

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
    @lru_cache(maxsize=KNOWN_PLACES)
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

    def paint(self, image: np.ndarray, planes: np.ndarray, scratch: np.ndarray | None = None) -> None:
        """Write a picture, (H, W, C) uint8, into its window of `planes`, (C, *target) float32, as 0 to 1.

        Of three channels, BGR becomes RGB; any other number keeps its order.

        Args:
            image: The picture.
            planes: What is written to; the padding around the window stays as it is.
            scratch: uint8 of `scratch_size` to work in, None for new memory.
        """
        rows, columns = self.window
        inside = planes[:, rows, columns]
        if scratch is None:
            scratch = np.empty(self.scratch_size(len(planes)), np.uint8)
        # One plane after the other: several times faster than a transposed view of the whole picture.
        channels = self._channels(image, scratch)
        for plane, channel in zip(inside[::-1] if len(planes) == 3 else inside, channels, strict=True):
            cv2.LUT(channel, SHARES, plane)

    def scratch_size(self, channels: int) -> int:
        """Bytes that `paint` works in: the resized picture, and its planes."""
        return 2 * channels * self.target[0] * self.target[1]

    def _channels(self, image: np.ndarray, scratch: np.ndarray) -> Sequence[np.ndarray]:
        """The channels of a picture, (H, W, C), at their size in the network input: C of (height, width)."""
        count, is_resized = image.shape[2], (self.height, self.width) != self.image_shape
        size = self.height * self.width * count
        if 1 < count <= MOST_AT_ONCE:
            if is_resized:
                image = self._resized(image, scratch[:size].reshape(self.height, self.width, count))
            planes = list(scratch[size : 2 * size].reshape(count, self.height, self.width))
            cv2.split(image, planes)
            return planes
        channels = (np.ascontiguousarray(image[..., index]) for index in range(count))
        return [self._resized(channel) if is_resized else channel for channel in channels]

    def _resized(self, image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return cv2.resize(image, (self.width, self.height), out, interpolation=cv2.INTER_LINEAR)

    def pad(self, planes: np.ndarray) -> None:
        """Paint what lies around the window of `planes`, (C, *target) float32."""
        rows, columns = self.window
        planes[:, : rows.start] = planes[:, rows.stop :] = GREY
        planes[:, rows, : columns.start] = planes[:, rows, columns.stop :] = GREY

    def blob(self, image: np.ndarray) -> np.ndarray:
        """Turn a picture, (H, W, C) uint8, into the network input, (1, C, *target) float32 in 0 to 1; see `paint`."""
        blob = np.empty((1, image.shape[2], *self.target), np.float32)
        self.pad(blob[0])
        self.paint(image, blob[0])
        return blob

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes, (N, 4) xyxy in network pixels, back to the picture's pixels, clipped to its borders."""
        return self.points_to_image(boxes.reshape(-1, 2)).reshape(-1, 4)  # (N, 4) -> (2N, 2) -> (N, 4)

    def points_to_image(self, points: np.ndarray) -> np.ndarray:
        """Map points, (..., 2) x and y in network pixels, back to the picture's pixels, clipped to its borders."""
        moved = (points - self.offset) / self.gain
        return np.minimum(np.maximum(moved, 0, out=moved), self.limit, out=moved)

    def rotated_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Map rotated boxes, (N, 5) cx, cy, w, h, angle in network pixels, back to the picture's pixels."""
        moved = boxes.copy()
        moved[:, :2] -= self.offset
        moved[:, :4] /= np.tile(self.gain, 2)
        return moved

    @cached_property
    def offset(self) -> np.ndarray:
        """Columns and rows of padding before the picture, (2,) float32."""
        return np.array([self.left, self.top], np.float32)

    @cached_property
    def limit(self) -> np.ndarray:
        """Width and height of the picture in pixels, (2,) float32."""
        return np.array(self.image_shape[::-1], np.float32)

    @cached_property
    def gain(self) -> np.ndarray:
        """Network pixels a picture's pixel in x and y, (2,) float32; they differ by rounding, or where stretched."""
        height, width = self.image_shape
        return np.array([self.width / width, self.height / height], np.float32)


class InputBuffer(threading.local):
    """The network input of one thread: its memory serves one batch after the other, its padding is painted once."""

    def __init__(self, channels: int = 3) -> None:
        self.channels = channels
        self._array = np.empty((0, channels, 0, 0), np.float32)
        self._scratch = np.empty(0, np.uint8)
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
            self._scratch = np.empty(places[0].scratch_size(self.channels), np.uint8)
        for index, (image, place) in enumerate(zip(images, places, strict=True)):
            before = self._places[index]
            if before is not None and before.window != place.window:
                place.pad(self._array[index])
            place.paint(image, self._array[index], self._scratch)
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
