"""Which models of Ultralytics can be students, and how one is built or loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.nn.tasks import (
    BaseModel,
    DetectionModel,
    OBBModel,
    PoseModel,
    RTDETRDetectionModel,
    SegmentationModel,
    SemanticSegmentationModel,
    yaml_model_load,
)
from ultralytics.utils.checks import check_yaml

from ima_yolo.architecture import check_architecture
from ima_yolo.errors import IMAError, one_line
from ima_yolo.host import load_model, task_of
from ima_yolo.plain_yaml import read_plain
from ima_yolo.random_streams import repeatable

RTDETR = "rtdetr"  # a detector, but one that Ultralytics trains by a trainer of its own
KINDS = {
    "Detect": "detect",
    "v10Detect": "detect",
    "RTDETRDecoder": RTDETR,
    "Segment": "segment",
    "Segment26": "segment",
    "SemanticSegment": "semantic",
    "Pose": "pose",
    "Pose26": "pose",
    "OBB": "obb",
    "OBB26": "obb",
}
"""Head of a student -> its kind, which is the task but for RT-DETR."""

_MODELS: dict[str, Any] = {
    "detect": DetectionModel,
    RTDETR: RTDETRDetectionModel,
    "segment": SegmentationModel,
    "semantic": SemanticSegmentationModel,
    "pose": PoseModel,
    "obb": OBBModel,
}


def task_of_kind(kind: str) -> str:
    """Return Ultralytics' word for the task of a kind of student."""
    return "detect" if kind == RTDETR else kind


def load_student(path: str, channels: int = 3) -> tuple[BaseModel, str]:
    """Load or build a student.

    Args:
        path: A checkpoint (.pt), or an architecture (.yaml), here or among those of Ultralytics.
        channels: Input channels of a new one.

    Returns:
        The model and its kind.

    Raises:
        IMAError: If it is missing, damaged, unsafe, or of a kind that is not distilled.
    """
    if not path:
        raise IMAError("student= is missing: give a checkpoint or an architecture, for example student=yolo26n.pt")
    if path.endswith(".pt"):
        student, _ = load_model(path, "student", reopened=True)
        return student, kind_of(student, f"student={path}")
    if path.endswith((".yaml", ".yml")):
        return _build(path, channels)
    raise IMAError(f"student={path}: expected a checkpoint (.pt) or an architecture (.yaml)")


def kind_of(student: BaseModel, role: str) -> str:
    """Return the kind of a student.

    Args:
        student: Any model of Ultralytics.
        role: How the message calls it.

    Raises:
        IMAError: If it is of a kind that is not distilled.
    """
    return _kind(type(student.model[-1]).__name__, f"{role}: a model for {task_of(student)}")


def _kind(head: str, what: str) -> str:
    if head not in KINDS:
        raise IMAError(f"{what} with a {head} head; students have one of {', '.join(KINDS)}")
    return KINDS[head]


def read_architecture(path: str, role: str) -> Mapping[str, Any]:
    """Read the description of a model, here or among those of Ultralytics.

    Args:
        path: A YAML file.
        role: The key that named it, for the message.

    Raises:
        IMAError: If it is missing, cannot be read, or names anything but layers.
    """
    for name in (path, re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", path)):  # Ultralytics reads the second for the first
        if found := check_yaml(name, hard=False):
            read_plain(Path(found), role)  # before its own reader, which nests until the process dies
    try:
        description: Mapping[str, Any] = yaml_model_load(path)
        check_architecture(description)
        str(description["head"][-1][2])
    except IMAError as error:
        raise IMAError(f"{role}={path}: {error}") from None
    except Exception as error:
        raise IMAError(
            f"{role}={path}: no such architecture (.yaml) or checkpoint (.pt), or not one to be read"
        ) from error
    return description


def _described(path: str) -> tuple[Mapping[str, Any], str]:
    """Read an architecture; return it with its kind."""
    description = read_architecture(path, "student")
    return description, _kind(str(description["head"][-1][2]), f"student={path}: a model")


def kind_of_path(path: str) -> str:
    """Return the kind of a student by its file, without building an architecture.

    Raises:
        IMAError: As `load_student`.
    """
    return _described(path)[1] if path.endswith((".yaml", ".yml")) else load_student(path)[1]


def _build(path: str, channels: int) -> tuple[BaseModel, str]:
    """Build an untrained model from its description, always the same; the global random stream is left alone."""
    description, kind = _described(path)
    try:
        with repeatable():
            return _MODELS[kind](description, ch=channels, verbose=False), kind
    except Exception as error:
        raise IMAError(f"student={path}: cannot be built ({one_line(error)})") from error
