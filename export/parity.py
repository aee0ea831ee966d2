"""How far an exported graph's outputs lie from the torch model's, and how far they may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .metadata import GraphKind, Metadata

BOX_TASKS = ("detect", "segment", "pose", "obb")


@dataclass(frozen=True)
class Difference:
    """Largest differences between two sets of outputs.

    Attributes:
        box: Pixels of the network input.
        score: Absolute, scores run from 0 to 1.
        other: Masks, keypoints, angles, dense maps: as a share of the largest value, of class maps the share of pixels.
    """

    box: float = 0.0
    score: float = 0.0
    other: float = 0.0

    def merge(self, more: Difference) -> Difference:
        """The larger of each."""
        return Difference(max(self.box, more.box), max(self.score, more.score), max(self.other, more.other))

    def within(self, limit: Difference) -> bool:
        """Whether each stays within its limit."""
        return self.box <= limit.box and self.score <= limit.score and self.other <= limit.other

    def text(self) -> str:
        """The figures for a message."""
        return f"boxes {self.box:.2g} px, scores {self.score:.2g}, other outputs {self.other:.2g}"


@dataclass(frozen=True)
class Tolerance:
    """What counts as the same model.

    Attributes:
        limit: Largest differences allowed.
        edge: Rows whose score lies this close above the graph's own cut-off, as a share of it, may be absent: rounding
            decides which of them make the list.
    """

    limit: Difference
    edge: float


FP32 = Tolerance(Difference(box=0.05, score=1e-3, other=1e-3), edge=1e-3)
"""Fused batch norms and another order of summation move float32 boxes by about 1e-4 px and scores by about 1e-6 (seen
on yolo26s at 224 and 640 px), a hundred times that in badly conditioned networks; a wrong weight moves them by far
more."""

FP16 = Tolerance(Difference(box=2.0, score=0.03, other=0.05), edge=0.1)
"""Half precision has 11 bits: coordinates from 512 to 1024 px lie 0.5 px apart, and rounding adds up over layers (seen
on yolo26s at 640 px: 0.74 px and 0.009)."""


def compare(
    expected: Sequence[np.ndarray],
    actual: Sequence[np.ndarray],
    metadata: Metadata,
    edge: float,
    conf: float = 0.0,
) -> Difference:
    """Compare all outputs of one picture or batch.

    Args:
        expected: The torch model's outputs.
        actual: The graph's outputs, in the same order.
        metadata: The graph's metadata, which says what the first output holds.
        edge: As `Tolerance.edge`.
        conf: Score threshold inside the graph, 0 where it has none.

    Returns:
        The largest differences; infinite where shapes differ or a value is not finite.
    """
    same_shapes = [a.shape for a in expected] == [a.shape for a in actual]
    if not same_shapes or not all(np.isfinite(a).all() for a in (*expected, *actual)):
        return Difference(np.inf, np.inf, np.inf)
    if metadata.kind is GraphKind.DENSE or metadata.task not in BOX_TASKS:
        first = Difference(other=_relative(expected[0], actual[0]))
    elif metadata.kind is GraphKind.RAW:
        first = _compare_raw(expected[0], actual[0], len(metadata.names))
    else:
        first = _compare_topk(expected[0], actual[0], metadata, edge, conf)
    rest = [Difference(other=_relative(a, b)) for a, b in zip(expected[1:], actual[1:], strict=True)]
    for difference in rest:
        first = first.merge(difference)
    return first


def _compare_raw(expected: np.ndarray, actual: np.ndarray, classes: int) -> Difference:
    """Element by element, (B, 4 + classes + extra, anchors)."""
    gap = np.abs(expected - actual)
    extra = slice(4 + classes, None)
    return Difference(
        float(gap[:, :4].max()), float(gap[:, 4 : extra.start].max()), _relative(expected[:, extra], actual[:, extra])
    )


def _compare_topk(expected: np.ndarray, actual: np.ndarray, metadata: Metadata, edge: float, conf: float) -> Difference:
    """Row sets, (B, rows, 6 + extra): rows of equal score may swap and rows at the cut-off may differ."""
    scale = np.ones(expected.shape[-1], np.float32)
    if metadata.kind is GraphKind.QUERIES:  # boxes are shares of the input's sides
        scale[:4] = [metadata.imgsz[1], metadata.imgsz[0]] * 2
    difference = Difference()
    for first, second in zip(expected * scale, actual * scale, strict=True):
        first, second = (rows[rows[:, 4] > 0] for rows in (first, second))  # zero rows are padding
        full = len(first) == len(second) == expected.shape[1]
        cut = max([conf, *(rows[:, 4].min() for rows in (first, second) if full)]) * (1 + edge)
        difference = difference.merge(_ranked_scores(first, second))
        for rows, others in ((first, second), (second, first)):
            difference = difference.merge(_nearest(rows[rows[:, 4] > cut], others))
    return difference


def _ranked_scores(first: np.ndarray, second: np.ndarray) -> Difference:
    """Difference of the best scores, the second best and so on: holds for rows that may be absent, too."""
    count = min(len(first), len(second))
    ranked = [np.sort(rows[:, 4])[::-1][:count] for rows in (first, second)]
    return Difference(score=float(np.abs(ranked[0] - ranked[1]).max(initial=0.0)))


def _nearest(rows: np.ndarray, others: np.ndarray) -> Difference:
    """Difference of each row to the row of its class in `others` whose box lies nearest."""
    if not len(rows):
        return Difference()
    if not len(others):
        return Difference(np.inf, np.inf)
    boxes = np.abs(rows[:, None, :4] - others[None, :, :4]).max(axis=2)  # (N, M)
    scores = np.abs(rows[:, None, 4] - others[None, :, 4])
    boxes = np.where(rows[:, None, 5] == others[None, :, 5], boxes, np.inf)
    # Scores break the tie between boxes that lie on one another; a share of a pixel never outweighs a box.
    partner = (boxes + scores).argmin(axis=1)
    index = np.arange(len(rows))
    extra = _relative(rows[:, 6:], others[partner, 6:])
    return Difference(float(boxes[index, partner].max()), float(scores[index, partner].max()), extra)


def _relative(expected: np.ndarray, actual: np.ndarray) -> float:
    """Largest difference as a share of the largest value; for whole numbers (class maps) the share that differs."""
    if not expected.size:
        return 0.0
    if np.issubdtype(expected.dtype, np.integer):
        return float((expected != actual).mean())
    return float(np.abs(expected - actual).max() / max(float(np.abs(expected).max()), 1e-6))
