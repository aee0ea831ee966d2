"""Network outputs become boxes, scores and classes; which reader a file needs is chosen here, from its metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from ima_yolo.errors import IMAError

from .metadata import GraphKind, Metadata
from .nms import nms
from .rotated import fast_nms

CLASS_OFFSET = 7680
"""Pixels by which the classes are moved apart before NMS; Ultralytics' figure, since it takes part in the rounding."""

MAX_CANDIDATES = 30000
"""Boxes that enter NMS at most, best first, as in Ultralytics."""


@dataclass(frozen=True)
class Thresholds:
    """What is kept of a network's output. Checked when made.

    Attributes:
        conf: Scores must be above it, 0 to 1.
        iou: Overlap above which the lower score goes, 0 to 1; without effect where a graph needs no NMS.
        max_det: Detections kept at most in a picture.
        agnostic_nms: Whether boxes of different classes suppress each other; without effect as `iou`.
        classes: Class index or indices to keep, None for all; a list of int once made.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    agnostic_nms: bool = False
    classes: Any = None

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            IMAError: Naming the setting, its value and what was expected.
        """
        for key in ("conf", "iou"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise IMAError(f"{key}={value!r}: expected a number from 0 to 1")
        if not _is_whole(self.max_det) or self.max_det < 1:
            raise IMAError(f"max_det={self.max_det!r}: expected a whole number above 0")
        if not isinstance(self.agnostic_nms, bool):
            raise IMAError(f"agnostic_nms={self.agnostic_nms!r}: expected True or False")
        if self.classes is not None:
            object.__setattr__(self, "classes", _indices(self.classes))


class Rows(NamedTuple):
    """What a graph found in one picture, best first.

    Attributes:
        boxes: (N, 4) float32 in network pixels: x1, y1, x2, y2; cx, cy, w, h of rotated boxes; of RT-DETR shares of the
            picture.
        scores: (N,) float32, 0 to 1.
        classes: (N,) int64.
        extra: (N, E) float32: mask coefficients, keypoints or angle.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    extra: np.ndarray

    def take(self, kept: np.ndarray) -> Rows:
        """The rows of an index or of a mask."""
        return Rows(self.boxes[kept], self.scores[kept], self.classes[kept], self.extra[kept])


Decoder = Callable[[np.ndarray, Thresholds], Rows]
"""One picture's part of the first output -> rows."""


def decoder_for(metadata: Metadata) -> Decoder:
    """Choose the reader of a file's boxes."""
    if metadata.kind is GraphKind.RAW:
        return partial(decode_raw, classes=len(metadata.names), rotated=metadata.task == "obb")
    return decode_queries if metadata.kind is GraphKind.QUERIES else decode_topk


def decode_raw(output: np.ndarray, thresholds: Thresholds, classes: int, rotated: bool = False) -> Rows:
    """Read (4 + classes + extra, anchors): best class of each anchor, threshold, then NMS by class or over all."""
    best = output[4 : 4 + classes].max(axis=0)  # (C, A) -> (A,)
    candidates = np.flatnonzero(best > thresholds.conf)
    found = output[:, candidates].T.astype(np.float32)  # (4 + C + E, A) -> (N, 4 + C + E)
    labels = found[:, 4 : 4 + classes].argmax(axis=1)
    scores = best[candidates].astype(np.float32, copy=False)
    boxes = found[:, :4] if rotated else _corners(found[:, :4])
    rows = Rows(boxes, scores, labels, found[:, 4 + classes :])
    if thresholds.classes is not None or len(scores) > MAX_CANDIDATES:
        rows = rows.take(_best(scores, _of_classes(labels, thresholds.classes), MAX_CANDIDATES))
    offset = rows.classes[:, None].astype(np.float32) * np.float32(0 if thresholds.agnostic_nms else CLASS_OFFSET)
    if rotated:
        apart = np.concatenate([rows.boxes[:, :2] + offset, rows.boxes[:, 2:], rows.extra[:, -1:]], axis=1)
        return rows.take(fast_nms(apart, rows.scores, thresholds.iou, thresholds.max_det))
    return rows.take(nms(rows.boxes + offset, rows.scores, thresholds.iou, thresholds.max_det))


def decode_topk(output: np.ndarray, thresholds: Thresholds) -> Rows:
    """Read (rows, 6 + extra) of box, score, class, extra, best first: threshold only."""
    rows = output.astype(np.float32, copy=False)
    labels = rows[:, 5].astype(np.int64)
    keep = (rows[:, 4] > thresholds.conf) & _of_classes(labels, thresholds.classes)
    kept = np.flatnonzero(keep)[: thresholds.max_det]
    return Rows(rows[kept, :4], rows[kept, 4], labels[kept], rows[kept, 6:])


def decode_queries(output: np.ndarray, thresholds: Thresholds) -> Rows:
    """Read RT-DETR's (queries, 6) of cx, cy, w, h, score, class: threshold only."""
    rows = decode_topk(output, thresholds)
    return rows._replace(boxes=_corners(rows.boxes))


def _corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) cx, cy, w, h -> x1, y1, x2, y2."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _of_classes(labels: np.ndarray, classes: Sequence[int] | None) -> np.ndarray:
    return np.ones(len(labels), bool) if classes is None else np.isin(labels, np.asarray(classes, np.int64))


def _best(scores: np.ndarray, allowed: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the allowed entries, in order, or of the `limit` best of them."""
    chosen = np.flatnonzero(allowed)
    if len(chosen) > limit:
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")[:limit]]
    return chosen


def _indices(values: object) -> list[int]:
    """Class indices in any form in which a user may hold them: one, a sequence, an array.

    Raises:
        IMAError: They are no class indices.
    """
    found = [values] if _is_whole(values) else values
    if not isinstance(found, (list, tuple, range, set, np.ndarray)) or not all(_is_whole(v) and v >= 0 for v in found):
        raise IMAError(f"classes={values!r}: expected class indices such as [0, 2]")
    return [int(value) for value in found]


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
