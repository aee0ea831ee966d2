"""Rotated boxes, cx, cy, w, h, angle in radians: their overlap, their suppression, their corners."""

from __future__ import annotations

import numpy as np

BLOCK = 256
"""Boxes compared at a time, which bounds the memory."""

EPS = 1e-7
"""Keeps divisions, roots and logarithms finite; Ultralytics' figure, since it takes part in the rounding."""


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Probabilistic overlap of rotated boxes: 1 less the Hellinger distance of their Gaussians.

    A box is the Gaussian with its centre as the mean and the covariance of a uniform rectangle; their Bhattacharyya
    distance is B, the Hellinger distance sqrt(1 - exp(-B)) (Llerena et al., arXiv 2106.06072, equations 4 to 9).

    Args:
        first: (N, 5) float32.
        second: (M, 5) float32.

    Returns:
        (N, M) float32, 0 to 1.
    """
    xx1, yy1, xy1 = (value[:, None] for value in _covariances(first))  # (N,) -> (N, 1)
    xx2, yy2, xy2 = _covariances(second)  # (M,)
    xx, yy, xy = xx1 + xx2, yy1 + yy2, xy1 + xy2
    dx, dy = second[:, 0] - first[:, 0, None], first[:, 1, None] - second[:, 1]
    determinant = xx * yy - xy**2
    apart = (xx * dy**2 + yy * dx**2) / (determinant + EPS) * 0.25 + xy * dx * dy / (determinant + EPS) * 0.5
    own = np.maximum(xx1 * yy1 - xy1**2, 0) * np.maximum(xx2 * yy2 - xy2**2, 0)
    unlike = np.log(determinant / (4 * np.sqrt(own) + EPS) + EPS) * 0.5
    distance = np.clip(apart + unlike, EPS, 100.0)
    return 1 - np.sqrt(1 - np.exp(-distance) + EPS)


def _covariances(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries xx, yy and xy of each box's covariance, (N,) each."""
    along, across = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return along * cos**2 + across * sin**2, along * sin**2 + across * cos**2, (along - across) * cos * sin


def fast_nms(boxes: np.ndarray, scores: np.ndarray, iou: float, max_det: int) -> np.ndarray:
    """Keep each box that overlaps no better one by more than `iou`, whether that one is kept or not.

    That is Fast NMS (Bolya et al., arXiv 1904.02689, section 3.3), which Ultralytics uses for rotated boxes.

    Args:
        boxes: (N, 5) float32.
        scores: (N,) float32.
        iou: Overlap above which the lower score goes, 0 to 1.
        max_det: Boxes kept at most.

    Returns:
        Indices of the kept boxes, (K,), best first.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, kept = boxes[order], np.empty(0, np.intp)
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        better = np.arange(block[-1] + 1)[:, None] < block
        suppressed = ((overlaps(ranked[: block[-1] + 1], ranked[block]) > iou) & better).any(axis=0)
        kept = np.concatenate([kept, block[~suppressed]])
        if len(kept) >= max_det:
            break
    return order[kept[:max_det]]


def corners(boxes: np.ndarray) -> np.ndarray:
    """The four corners of each box in order around it, (N, 5) -> (N, 4, 2) x and y."""
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    half = np.stack([cos, sin], 1) * boxes[:, 2, None] / 2  # (N, 2), along the width
    side = np.stack([-sin, cos], 1) * boxes[:, 3, None] / 2  # (N, 2), along the height
    centre = boxes[:, :2]
    return np.stack([centre + half + side, centre + half - side, centre - half - side, centre - half + side], 1)


def enclosing(boxes: np.ndarray) -> np.ndarray:
    """The upright box around each rotated one, (N, 5) -> (N, 4) xyxy."""
    points = corners(boxes)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
