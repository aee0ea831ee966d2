"""Network outputs become boxes, scores and classes; which reader a file needs is chosen here, from its metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ima_yolo.errors import IMAError

from .metadata import GraphKind, Metadata
from .nms import nms

CLASS_OFFSET = 7680
"""Pixels by which the classes are moved apart before NMS; Ultralytics' figure, since it takes part in the rounding."""

MAX_CANDIDATES = 30000
"""Boxes that enter NMS at most, best first, as in Ultralytics."""

Decoded = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes (N, 4) float32 xyxy in network pixels, scores (N,) float32, classes (N,) int64; best first."""


@dataclass(frozen=True)
class Thresholds:
    """What is kept of a network's output. Checked when made.

    Attributes:
        conf: Scores must be above it, 0 to 1.
        iou: Overlap above which the lower score goes, 0 to 1; without effect where a graph needs no NMS.
        max_det: Detections kept at most in a picture.
        agnostic_nms: Whether boxes of different classes suppress each other; without effect as `iou`.
        classes: Class indices to keep, None for all.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    agnostic_nms: bool = False
    classes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            IMAError: Naming the setting, its value and what was expected.
        """
        for key in ("conf", "iou"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise IMAError(f"{key}={value!r}: expected a number from 0 to 1")
        if type(self.max_det) is not int or self.max_det < 1:
            raise IMAError(f"max_det={self.max_det!r}: expected a whole number above 0")
        if not isinstance(self.agnostic_nms, bool):
            raise IMAError(f"agnostic_nms={self.agnostic_nms!r}: expected True or False")
        if self.classes is not None and not _are_indices(self.classes):
            raise IMAError(f"classes={self.classes!r}: expected a list of class indices such as [0, 2]")


Decoder = Callable[[Sequence[np.ndarray], Thresholds], Decoded]


def decoder_for(metadata: Metadata, source: str) -> Decoder:
    """Choose the reader of a file's outputs.

    Raises:
        IMAError: The task or the kind of graph is one that this runtime does not read.
    """
    if metadata.task != "detect":
        raise IMAError(f"{source}: task {metadata.task!r} is not supported by this runtime, supported tasks: detect")
    if metadata.kind is GraphKind.RAW:
        return partial(decode_raw, classes=len(metadata.names))
    if metadata.kind in (GraphKind.NMS_FREE, GraphKind.NMS_EMBEDDED):
        return decode_topk
    raise IMAError(f"{source}: head {metadata.head} is not supported by this runtime, supported: YOLO detection heads")


def decode_raw(outputs: Sequence[np.ndarray], thresholds: Thresholds, classes: int) -> Decoded:
    """Read (1, 4 + classes, anchors): best class of each anchor, threshold, then NMS by class or over all."""
    output = outputs[0][0]  # (1, 4 + C, A) -> (4 + C, A)
    candidates = np.flatnonzero(output[4 : 4 + classes].max(axis=0) > thresholds.conf)
    found = output[:, candidates].T.astype(np.float32)  # (4 + C, A) -> (N, 4 + C)
    labels = found[:, 4 : 4 + classes].argmax(axis=1)
    scores = found[np.arange(len(found)), 4 + labels]
    half = found[:, 2:4] / 2
    boxes = np.concatenate([found[:, :2] - half, found[:, :2] + half], axis=1)
    chosen = _best(scores, _of_classes(labels, thresholds.classes), MAX_CANDIDATES)
    boxes, scores, labels = boxes[chosen], scores[chosen], labels[chosen]
    offset = 0 if thresholds.agnostic_nms else CLASS_OFFSET
    apart = boxes + labels[:, None].astype(np.float32) * np.float32(offset)
    kept = nms(apart, scores, thresholds.iou, thresholds.max_det)
    return boxes[kept], scores[kept], labels[kept]


def decode_topk(outputs: Sequence[np.ndarray], thresholds: Thresholds) -> Decoded:
    """Read (1, rows, 6) of x1, y1, x2, y2, score, class, best first: threshold only."""
    rows = outputs[0][0].astype(np.float32)
    labels = rows[:, 5].astype(np.int64)
    keep = (rows[:, 4] > thresholds.conf) & _of_classes(labels, thresholds.classes)
    kept = np.flatnonzero(keep)[: thresholds.max_det]
    return rows[kept, :4], rows[kept, 4], labels[kept]


def _of_classes(labels: np.ndarray, classes: Sequence[int] | None) -> np.ndarray:
    return np.ones(len(labels), bool) if classes is None else np.isin(labels, np.asarray(classes, np.int64))


def _best(scores: np.ndarray, allowed: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the allowed entries, in order, or of the `limit` best of them."""
    chosen = np.flatnonzero(allowed)
    if len(chosen) > limit:
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")[:limit]]
    return chosen


def _are_indices(values: object) -> bool:
    return isinstance(values, (list, tuple)) and all(type(value) is int and value >= 0 for value in values)
