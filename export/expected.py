"""What a model gave where its kit was made, and how another machine's result differs from that."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from .results import ClassMap, Detections, Result

PIXELS, SCORE = 1.0, 0.01
"""How far another processor's arithmetic may move a point, and a score or the share of pixels of another class."""


def form(found: Result) -> dict[str, Any]:
    """A result as JSON holds it: detections, or a class map as a PNG."""
    if isinstance(found, ClassMap):
        _, picture = cv2.imencode(".png", found.classes.astype(np.uint16))
        return {"map": base64.b64encode(picture.tobytes()).decode()}
    return {"detections": found.to_dicts(), "boxes": found.boxes.tolist()}


def differs(expected: Mapping[str, Any], found: Result) -> str:
    """What differs between an expected result, of `form`, and a found one; "" if nothing does."""
    if not isinstance(found, ClassMap):
        return _differing_detections(expected, found)
    data = np.frombuffer(base64.b64decode(expected["map"]), np.uint8)
    classes = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if classes is None or classes.shape != found.classes.shape:
        there = "none" if classes is None else classes.shape
        return f"a map of {found.classes.shape} pixels in place of {there}"
    share = float(np.mean(classes != found.classes))
    return f"{share:.1%} of the pixels have another class" if share > SCORE else ""


def _differing_detections(expected: Mapping[str, Any], found: Detections) -> str:
    if len(found) != len(expected["boxes"]):
        return f"{len(found)} detections in place of {len(expected['boxes'])}"
    free, entries = list(range(len(found))), found.to_dicts()
    for box, entry in zip(expected["boxes"], expected["detections"], strict=True):
        what = f"{entry['name']} of confidence {entry['confidence']:.2f} at {[round(side) for side in box]}"
        near = [i for i in free if _is_near(entry, entries[i]) and _apart(found.boxes[i], np.array(box)) <= PIXELS]
        faults = {index: _differing_shape(entry, entries[index], found.shape) for index in near}
        if not faults:
            return f"no {what}"
        best = min(faults, key=lambda index: bool(faults[index]))
        if faults[best]:
            return f"{faults[best]} of the {what} differ"
        free.remove(best)
    return ""


def _is_near(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return bool(found["class"] == expected["class"] and abs(found["confidence"] - expected["confidence"]) <= SCORE)


def _differing_shape(expected: Mapping[str, Any], found: Mapping[str, Any], size: tuple[int, int]) -> str:
    """Which part of a detection beyond its upright box differs, "" if none does."""
    corners, others = (_points(entry["box"]) for entry in (expected, found))
    if min(_apart(corners, np.roll(others, turn, axis=0)) for turn in range(len(corners))) > PIXELS:
        return "the corners"
    if "keypoints" in expected:
        columns = [np.array(list(entry["keypoints"].values())) for entry in (expected, found)]
        gaps = [_apart(*rows) for rows in zip(*columns, strict=True)]
        if max(gaps[:2]) > PIXELS or max(gaps[2:], default=0) > SCORE:
            return "the keypoints"
    if "segments" in expected:
        outline, other = (np.array(list(entry["segments"].values()), np.float32).T for entry in (expected, found))
        if not _covers_the_same(outline, other, size):
            return "the outlines"
    return ""


def _points(box: Mapping[str, float]) -> np.ndarray:
    """The corners of a box, (2 or 4, 2)."""
    return np.array(list(box.values())).reshape(-1, 2)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max(initial=0.0)) if one.shape == other.shape else float("inf")


def _covers_the_same(one: np.ndarray, other: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether two outlines, (K, 2) each, lie within `PIXELS` of each other: by the pixels that only one covers."""
    filled = [np.zeros(size, np.uint8) for _ in range(2)]
    for canvas, outline in zip(filled, (one, other), strict=True):
        if len(outline):
            cv2.fillPoly(canvas, [np.rint(outline).astype(np.int32)], 1)
    length = cv2.arcLength(one.reshape(-1, 1, 2), True) if len(one) else 0.0
    return bool(np.count_nonzero(filled[0] != filled[1]) <= PIXELS * length)
