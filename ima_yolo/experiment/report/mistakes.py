"""What kind of mistake each wrong detection is, and which objects are missed.

The kinds are those of TIDE (Bolya et al. 2020, arXiv 2008.08115), counted at one confidence instead of weighed by the
average precision that mending them would bring.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOREGROUND, BACKGROUND = 0.5, 0.1  # least overlap of a hit, and of a near miss
KINDS = ("class", "location", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class Objects:
    """Boxes on one image.

    Attributes:
        boxes: (N, 4) xyxy in pixels of the image.
        classes: (N,) class indices.
        scores: (N,) confidences in [0, 1]; empty for ground truth.
    """

    boxes: NDArray[Any]
    classes: NDArray[Any]
    scores: NDArray[Any]


def overlaps(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Intersection over union of (N, 4) and (M, 4) xyxy boxes: (N, M)."""
    near = np.maximum(first[:, None, :2], second[None, :, :2])
    far = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(far - near, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9)


def mistakes(truth: Objects, found: Objects, conf: float) -> dict[str, int]:
    """Count the hits and the mistakes of each kind on one image.

    Detections take objects in the order of their confidence; each takes the free object of its class that it overlaps
    most, by at least one half. What takes none is, in this order: `location` if it overlaps an object of its class by
    0.1 to 0.5; `class` if it overlaps one of another class by at least 0.5; `duplicate` if one of its own class by at
    least 0.5, which is taken; `background` if it overlaps nothing by 0.1; else `both` (class and location). An object
    is `missed` if nothing took it and no `class` or `location` mistake means it.

    Args:
        truth: What is there.
        found: What was detected.
        conf: Detections below this confidence do not count.

    Returns:
        Counts of `correct`, of each of `KINDS`, and of all `objects`.
    """
    kept = np.flatnonzero(found.scores >= conf)
    kept = kept[np.argsort(-found.scores[kept], kind="stable")]
    overlap = overlaps(found.boxes[kept], truth.boxes)  # (D, G)
    same = found.classes[kept][:, None] == truth.classes[None, :]
    free, meant = np.ones(len(truth.classes), bool), np.zeros(len(truth.classes), bool)
    counts = dict.fromkeys(("correct", *KINDS, "objects"), 0)
    wrong = []
    for row in range(len(kept)):
        possible = np.where(same[row] & free, overlap[row], 0.0)
        if possible.size and possible.max() >= FOREGROUND:
            free[possible.argmax()] = False
            counts["correct"] += 1
        else:
            wrong.append(row)
    for row in wrong:
        kind, index = _kind(overlap[row], same[row])
        counts[kind] += 1
        if index is not None:
            meant[index] = True
    counts["missed"] = int((free & ~meant).sum())
    counts["objects"] = len(truth.classes)
    return counts


def _kind(overlap: NDArray[Any], same: NDArray[Any]) -> tuple[str, int | None]:
    """Kind of a wrong detection, and the object that it means."""
    if not overlap.size:
        return "background", None
    own, other = np.where(same, overlap, 0.0), np.where(same, 0.0, overlap)
    if BACKGROUND <= own.max() < FOREGROUND:
        return "location", int(own.argmax())
    if other.max() >= FOREGROUND:
        return "class", int(other.argmax())
    if own.max() >= FOREGROUND:
        return "duplicate", None
    return ("background", None) if overlap.max() < BACKGROUND else ("both", None)


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Sum the counts of several images."""
    summed = dict.fromkeys(("correct", *KINDS, "objects"), 0)
    for one in counts:
        for key, value in one.items():
            summed[key] += value
    return summed


def harmony(counts: dict[str, int]) -> float:
    """F1 of an image in [0, 1]: twice the hits over detections and objects together; 1 where there is neither."""
    wrong = sum(counts[kind] for kind in KINDS if kind != "missed")
    both = 2 * counts["correct"] + wrong + (counts["objects"] - counts["correct"])
    return 2 * counts["correct"] / both if both else 1.0
