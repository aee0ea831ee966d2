"""What an exported file says about itself: the Ultralytics metadata, read as typed values."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ima_yolo.errors import IMAError

DENSE_TASKS = ("semantic", "depth")

MOST_SIDE = 8192
"""Pixels of a side of the network input, at most: a picture of that size takes 0.8 GB before anything is done."""


UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
"""Runs of characters in a class name that a terminal or a text would obey, or that have no encoding."""


class GraphKind(str, Enum):
    """What the first output of a graph holds. The shapes alone are ambiguous, so it is told from the metadata."""

    RAW = "raw"
    """(B, 4 + classes + extra, anchors): cx, cy, w, h in network pixels and sigmoided scores; needs NMS."""
    NMS_FREE = "nms-free"
    """(B, max_det, 6 + extra): x1, y1, x2, y2, score, class of the one-to-one head; needs a threshold only."""
    NMS_EMBEDDED = "nms-embedded"
    """(B, max_det, 6 + extra), padded with zero rows: NMS with fixed thresholds is part of the graph."""
    QUERIES = "queries"
    """(B, queries, 6): RT-DETR, cx, cy, w, h as shares of a stretched picture, score, class."""
    DENSE = "dense"
    """One value or class a pixel."""


@dataclass(frozen=True)
class Metadata:
    """The part of an exported file's metadata that decides how it is fed and read.

    Attributes:
        task: Ultralytics task, "detect" for boxes.
        names: Class index to class name, where control characters are blanks.
        imgsz: Height and width of the network input in pixels.
        stride: Largest stride of the network in pixels.
        head: Class name of the head, "" in files older than this key.
        end2end: Whether the graph holds the NMS-free head.
        channels: Channels of the input picture.
        args: The settings of the export, as far as Ultralytics records them.
        kpt_shape: Keypoints of an object and values of each (2: x, y; 3: x, y, visibility); None without keypoints.
    """

    task: str
    names: dict[int, str]
    imgsz: tuple[int, int]
    stride: int
    head: str
    end2end: bool
    channels: int
    args: dict[str, Any]
    kpt_shape: tuple[int, int] | None = None

    @property
    def batch(self) -> int:
        """Pictures that the export was made for."""
        batch = self.args.get("batch", 1)
        return batch if type(batch) is int and batch > 0 else 1

    @property
    def extra(self) -> int | None:
        """Values of a box after score and class, None where only the graph tells (mask coefficients)."""
        if self.task == "pose" and self.kpt_shape:
            return self.kpt_shape[0] * self.kpt_shape[1]
        return {"detect": 0, "obb": 1}.get(self.task)

    @property
    def kind(self) -> GraphKind:
        """The graph kind; every later choice of a reader hangs on it and on `task`."""
        if self.task in DENSE_TASKS:
            return GraphKind.DENSE
        if self.head == "RTDETRDecoder":
            return GraphKind.QUERIES
        if self.end2end:
            return GraphKind.NMS_FREE
        return GraphKind.NMS_EMBEDDED if self.args.get("nms") else GraphKind.RAW


def parse_metadata(raw: Mapping[str, str], source: str) -> Metadata:
    """Read the key-value strings that Ultralytics stores in an exported file.

    Args:
        raw: The strings, as ONNX Runtime's `custom_metadata_map` gives them.
        source: Name of the file, for error messages.

    Raises:
        IMAError: A key that is needed is missing, or a value is not what Ultralytics writes there.
    """
    missing = [key for key in ("task", "names", "imgsz", "stride") if key not in raw]
    if missing:
        raise IMAError(
            f"{source}: no Ultralytics metadata ({', '.join(missing)} missing); "
            "export the model with `ima-yolo export` or `yolo export format=onnx`"
        )
    reader = _Reader(raw, source)
    return Metadata(
        task=raw["task"],
        names=reader.names(),
        imgsz=reader.imgsz(),
        stride=reader.positive_int("stride", None),
        head=raw.get("head", ""),
        end2end=reader.value("end2end", bool, False),
        channels=reader.positive_int("channels", 3),
        args=reader.value("args", dict, {}),
        kpt_shape=reader.kpt_shape(),
    )


class _Reader:
    """Literal values out of metadata strings, each checked and named in its error."""

    def __init__(self, raw: Mapping[str, str], source: str) -> None:
        self.raw, self.source = raw, source

    def value(self, key: str, kind: type, default: Any) -> Any:
        if key not in self.raw:
            return default
        try:
            value = ast.literal_eval(self.raw[key])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise self.wrong(key, f"a {kind.__name__}")
        return value

    def positive_int(self, key: str, default: int | None) -> int:
        value: int = self.value(key, int, default)
        if value <= 0 or isinstance(value, bool):
            raise self.wrong(key, "a whole number above 0")
        return value

    def names(self) -> dict[int, str]:
        names: dict[int, str] = self.value("names", dict, None)
        if set(names) != set(range(len(names))) or not names or not all(isinstance(n, str) for n in names.values()):
            raise self.wrong("names", "class names numbered from 0")
        return {index: UNPRINTABLE.sub(" ", name) for index, name in names.items()}

    def imgsz(self) -> tuple[int, int]:
        size: list[int] = self.value("imgsz", list, None)
        if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
            raise self.wrong("imgsz", "[height, width] in pixels")
        if max(size) > MOST_SIDE:
            raise self.wrong("imgsz", f"at most {MOST_SIDE} pixels")
        return size[0], size[1]

    def kpt_shape(self) -> tuple[int, int] | None:
        shape: list[int] | None = self.value("kpt_shape", list, None)
        if shape is None:
            if self.raw["task"] == "pose":
                raise IMAError(f"{self.source}: metadata kpt_shape is missing, which a pose model needs; export again")
            return None
        if len(shape) != 2 or type(shape[0]) is not int or shape[0] < 1 or shape[1] not in (2, 3):
            raise self.wrong("kpt_shape", "[keypoints, 2 or 3]")
        return shape[0], shape[1]

    def wrong(self, key: str, expected: str) -> IMAError:
        return IMAError(
            f"{self.source}: metadata {key}={self.raw[key][:60]!r} is damaged, expected {expected}; export again"
        )
