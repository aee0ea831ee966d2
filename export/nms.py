"""Non-maximum suppression in numpy, with the order and the arithmetic of torchvision, which Ultralytics uses."""

from __future__ import annotations

import numpy as np

BLOCK = 128
"""Boxes compared at a time where many overlap: pairs within a block cost one matrix, so this bounds both memory and
Python steps."""

MOST_PAIRS = 1 << 15
"""Pairs that are compared one by one, without blocks: more of them cost more than the matrices do."""


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
    # What comes after the last kept one changes nothing, and few are suppressed: mostly the first part is enough.
    for count in (max_det + max_det // 4, len(order)):
        kept = _kept(np.ascontiguousarray(boxes[order[:count]].T), _limit(float(iou)), max_det)  # (N, 4) -> (4, N)
        if len(kept) == max_det or count >= len(order):
            break
    return order[kept]


def _kept(sides: np.ndarray, limit: np.float32, max_det: int) -> np.ndarray:
    """Indices of at most `max_det` kept ones of (4, N) boxes sorted by score."""
    pairs = _pairs_in_reach(sides)
    if pairs is None:
        return _by_blocks(sides, limit, max_det)
    return _by_pairs(sides, limit, *pairs)[:max_det]


def _pairs_in_reach(sides: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Pairs of (4, N) boxes that share a column, as two arrays of indices; None where they are more than `MOST_PAIRS`.

    Of classes that were moved apart no two share one, so this leaves few.
    """
    from_left = np.argsort(sides[0])
    last = np.searchsorted(sides[0][from_left], sides[2][from_left])  # the first box that begins where this one ends
    count = np.maximum(last - np.arange(1, len(last) + 1), 0)
    before = np.cumsum(count)
    if len(count) and before[-1] > MOST_PAIRS:
        return None
    one = np.repeat(np.arange(len(count)), count)
    other = np.arange(len(one)) - (before - count)[one] + one + 1
    return from_left[one], from_left[other]


def _by_pairs(sides: np.ndarray, limit: np.float32, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kept ones of (4, N) boxes sorted by score, all pairs of them that may overlap given."""
    better, worse = np.minimum(one, other), np.maximum(one, other)
    high = np.flatnonzero(_ratio(sides[:, better], sides[:, worse]) > limit)
    high = high[np.argsort(better[high], kind="stable")]
    free = [True] * sides.shape[1]
    for first, second in zip(better[high].tolist(), worse[high].tolist(), strict=True):
        if free[first]:  # settled: who could suppress it came before
            free[second] = False
    return np.flatnonzero(free)


def _by_blocks(sides: np.ndarray, limit: np.float32, max_det: int) -> np.ndarray:
    """At most `max_det` kept ones of (4, N) boxes sorted by score."""
    kept = np.empty(0, np.intp)
    for start in range(0, sides.shape[1], BLOCK):
        block = np.arange(start, min(start + BLOCK, sides.shape[1]))
        if len(kept):
            block = block[~_overlaps(sides[:, kept], sides[:, block], limit).any(axis=0)]
        kept = np.concatenate([kept, block[_greedy(_overlaps(sides[:, block], sides[:, block], limit))]])
        if len(kept) >= max_det:
            break
    return kept[:max_det]


def _greedy(overlaps: np.ndarray) -> np.ndarray:
    """Walk down boxes sorted by score, (N, N) bool overlaps, and keep those that no kept one suppresses."""
    worse, free = np.triu(overlaps, 1), np.ones(len(overlaps), bool)
    for index in np.flatnonzero(worse.any(axis=1)):  # most boxes suppress nothing
        if free[index]:
            free &= ~worse[index]
    return np.flatnonzero(free)


def _overlaps(first: np.ndarray, second: np.ndarray, limit: np.float32) -> np.ndarray:
    """Whether each pair of (4, N) and (4, M) boxes overlaps by more than `limit`, (N, M) bool."""
    return _ratio(first[:, :, None], second[:, None]) > limit


def _ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes, (4, ...) each, which broadcast."""
    width = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid="ignore", divide="ignore"):  # two empty boxes give 0/0, which suppresses nothing
        return inter / (_areas(first) + _areas(second) - inter)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])


def _limit(iou: float) -> np.float32:
    """The largest float32 that is not above `iou`.

    torchvision compares a float32 ratio with a float64 threshold; it matters for a ratio of exactly 0.6. Against this
    figure the comparison comes out the same without a wider copy.
    """
    nearest = np.float32(iou)
    return nearest if float(nearest) <= iou else np.nextafter(nearest, np.float32(-1))
