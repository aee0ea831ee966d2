"""Masks of single objects: prototypes and coefficients become cut-outs, polygons and whole masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .preprocess import Letterbox


@dataclass(frozen=True)
class Masks:
    """The masks of one picture, kept as cut-outs at the resolution of the network input.

    Attributes:
        patches: A bool array a mask, of the size of its box.
        origins: (N, 2) int, column and row of each cut-out in the network input.
        place: How the picture lies in the network input.
    """

    patches: Sequence[np.ndarray]
    origins: np.ndarray
    place: Letterbox

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.patches)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each mask at the size of the picture, (H, W) bool."""
        for index in range(len(self)):
            yield self.in_image(index)

    def take(self, kept: np.ndarray) -> Masks:
        """The masks of an index."""
        return Masks([self.patches[index] for index in kept], self.origins[kept], self.place)

    def in_network(self, index: int) -> np.ndarray:
        """One mask at the size of the network input, padding included, (h, w) bool."""
        whole = np.zeros(self.place.target, bool)
        (x, y), patch = self.origins[index], self.patches[index]
        whole[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
        return whole

    def in_image(self, index: int) -> np.ndarray:
        """One mask at the size of the picture, (H, W) bool."""
        window = self.in_network(index)[self.place.window].astype(np.float32)
        height, width = self.place.image_shape
        return cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5

    def polygons(self, index: int) -> list[np.ndarray]:
        """The outlines of one mask, largest first, each (K, 2) float32 x and y in pixels of the picture, K >= 3."""
        patch = np.ascontiguousarray(self.patches[index], np.uint8)
        offset = (int(self.origins[index][0]), int(self.origins[index][1]))
        found = cv2.findContours(patch, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=offset)[0]
        found = sorted((line for line in found if len(line) >= 3), key=cv2.contourArea, reverse=True)
        return [self.place.points_to_image(line.reshape(-1, 2).astype(np.float32)) for line in found]

    def polygon(self, index: int) -> np.ndarray:
        """The outlines of one mask as one, (K, 2) float32 x and y in pixels of the picture; K is 0 without any.

        Bridges of no width lead from the largest part to each other one and back, so that the area within is that of
        all of them.
        """
        outlines = self.polygons(index)
        return _bridged(outlines) if outlines else np.empty((0, 2), np.float32)


def _bridged(outlines: Sequence[np.ndarray]) -> np.ndarray:
    """Walk the first outline; at its point nearest to another one go there, round it, and come back."""
    first, *others = outlines
    detours: dict[int, list[np.ndarray]] = {}
    for other in others:
        apart = ((first[:, None] - other) ** 2).sum(axis=-1)  # (K, 2), (L, 2) -> (K, L)
        leave, reach = np.unravel_index(apart.argmin(), apart.shape)
        around = np.roll(other, -int(reach), axis=0)
        detours.setdefault(int(leave), []).extend((around, around[:1], first[leave : leave + 1]))
    walk = [part for at in range(len(first)) for part in (first[at : at + 1], *detours.get(at, ()))]
    return np.concatenate(walk)


def decode_masks(protos: np.ndarray, coefficients: np.ndarray, boxes: np.ndarray, place: Letterbox) -> Masks:
    """Mix the prototypes, enlarge to the network input, and cut at 0 and at the box.

    Args:
        protos: (P, h, w) float prototypes.
        coefficients: (N, P) float32.
        boxes: (N, 4) xyxy in network pixels.
        place: How the picture lies in the network input.

    Returns:
        N masks; one whose cut-out is empty has no pixels.
    """
    limit = np.array([place.target[1], place.target[0]])
    # A pixel belongs to the box if its index does, as in Ultralytics.
    low = np.clip(np.ceil(boxes[:, :2]), 0, limit).astype(int)
    high = np.clip(np.ceil(boxes[:, 2:]), low, limit).astype(int)
    factor = (place.target[1] // protos.shape[2], place.target[0] // protos.shape[1])
    flat = protos.astype(np.float32, copy=False)
    patches = [_patch(flat, c, a, b, factor) for c, a, b in zip(coefficients, low, high, strict=True)]
    return Masks(patches, low, place)


def _patch(
    protos: np.ndarray, coefficients: np.ndarray, low: np.ndarray, high: np.ndarray, factor: tuple[int, int]
) -> np.ndarray:
    """One cut-out: only the prototypes' cells under the box, and one more on each side for the interpolation."""
    if (high <= low).any():
        return np.zeros((0, 0), bool)
    start = np.maximum(low // factor - 1, 0)
    stop = np.minimum(-(-high // factor) + 1, [protos.shape[2], protos.shape[1]])
    cells = protos[:, start[1] : stop[1], start[0] : stop[0]]  # (P, h, w)
    logits = np.tensordot(coefficients, cells, 1)  # (P,), (P, h, w) -> (h, w)
    size = (logits.shape[1] * factor[0], logits.shape[0] * factor[1])
    large = cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR)
    shift, end = low - start * factor, high - start * factor
    return large[shift[1] : end[1], shift[0] : end[0]] > 0
