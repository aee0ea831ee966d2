"""Non-maximum suppression in numpy, with the order and the arithmetic of torchvision, which Ultralytics uses."""

from __future__ import annotations

import numpy as np

BLOCK = 128
"""Boxes compared at a time: pairs within a block cost one matrix, so this bounds both memory and Python steps."""


def nms(boxes: np.ndarray, scores: np.ndarray, iou: float, max_det: int) -> np.ndarray:
    """Keep each box that does not overlap a better kept one by more than `iou`.

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N,) float32; equal scores keep their order.
        iou: Overlap above which the lower score goes, 0 to 1.
        max_det: Boxes kept at most.

    Returns:
        Indices of the kept boxes, (K,), best first.
    """
    order = np.argsort(-scores, kind="stable")
    sides = np.ascontiguousarray(boxes[order].T)  # (N, 4) -> (4, N)
    kept, limit = np.empty(0, np.intp), _limit(float(iou))
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        if len(kept):
            block = block[~_overlaps(sides[:, kept], sides[:, block], limit).any(axis=0)]
        kept = np.concatenate([kept, block[_greedy(_overlaps(sides[:, block], sides[:, block], limit))]])
        if len(kept) >= max_det:
            break
    return order[kept[:max_det]]


def _greedy(overlaps: np.ndarray) -> np.ndarray:
    """Walk down boxes sorted by score, (N, N) bool overlaps, and keep those that no kept one suppresses."""
    worse, free = np.triu(overlaps, 1), np.ones(len(overlaps), bool)
    for index in np.flatnonzero(worse.any(axis=1)):  # most boxes suppress nothing
        if free[index]:
            free &= ~worse[index]
    return np.flatnonzero(free)


def _overlaps(first: np.ndarray, second: np.ndarray, limit: np.float32) -> np.ndarray:
    """Whether each pair of (4, N) and (4, M) boxes overlaps by more than `limit`, (N, M) bool."""
    left, top, right, bottom = first[:, :, None]
    width = np.minimum(right, second[2]) - np.maximum(left, second[0])  # (N, 1), (M,) -> (N, M)
    height = np.minimum(bottom, second[3]) - np.maximum(top, second[1])
    found = (width > 0) & (height > 0)
    one, other = found.nonzero()  # most boxes are apart: what follows costs little
    with np.errstate(invalid="ignore", divide="ignore"):  # of boxes that have no end
        inter = width[one, other] * height[one, other]
        union = _areas(first)[one] + _areas(second)[other] - inter
        found[one, other] = inter / union > limit
    return found


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])


def _limit(iou: float) -> np.float32:
    """The largest float32 that is not above `iou`.

    torchvision compares a float32 ratio with a float64 threshold; it matters for a ratio of exactly 0.6. Against this
    figure the comparison comes out the same without a wider copy.
    """
    nearest = np.float32(iou)
    return nearest if float(nearest) <= iou else np.nextafter(nearest, np.float32(-1))
