"""Frozen teachers: one Protocol, one file a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ima_yolo.features import Features, Predictions


@dataclass(frozen=True)
class TeacherOutput:
    """What a teacher says of a batch.

    Attributes:
        features: Its maps.
        confidence: Highest class score in [0, 1] of each cell, one (B, 1, H, W) map a stride; None unless asked for.
        boxes: (R, 5) detections: image index, x1, y1, x2, y2 in input pixels; None unless asked for.
        predictions: Scores and boxes of every cell; None unless the head was run.
    """

    features: Features
    confidence: dict[int, Tensor] | None = None
    boxes: Tensor | None = None
    predictions: Predictions | None = None


@dataclass(frozen=True)
class Observed:
    """What the teachers said of a batch.

    Attributes:
        outputs: One a teacher.
        chosen: Indices of the images that they saw; None for all.
        asked: What each was asked for beside maps: confidence, boxes, predictions; None for one that rested.
    """

    outputs: list[TeacherOutput]
    chosen: Tensor | None
    asked: list[tuple[bool, bool, bool] | None]

    @property
    def has_heads(self) -> bool:
        """Whether any teacher's head was asked for predictions."""
        return any(wanted is not None and wanted[2] for wanted in self.asked)


class Teacher(Protocol):
    """A frozen model with feature maps.

    Attributes:
        name: How messages call it.
        strides: Pixels of its own input per cell of each map, finest first, each once.
        channels: Channels of each map.
        input_channels: Channels of the images that it takes.
        class_names: Class names by index, or None where it knows none.
        predicts: Whether its head can be asked: for confidence, boxes and predictions of every cell.

    One attribute more is read where there is one, `resampled_from`: the stride of the map from which all others are
    resampled. It is said when a training starts; None, or no such attribute, where each map is the network's own.
    """

    name: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    input_channels: int
    class_names: dict[int, str] | None
    predicts: bool

    def to(self, device: torch.device) -> Teacher:
        """Move to a device and return itself."""

    def digest(self) -> str:
        """SHA-256 over names and bytes of all weights: equal before and after a training."""

    def __call__(
        self, images: Tensor, confidence: bool = False, boxes: bool = False, predictions: bool = False
    ) -> TeacherOutput:
        """Look at (B, `input_channels`, H, W) images in [0, 1], RGB where they have three channels.

        Height and width may be any; a map of stride s has ceil(H / s) rows and ceil(W / s) columns. The head runs only
        if something that it says is asked for, which happens only where `predicts`.
        """


def resampled_from(teacher: Teacher) -> int | None:
    """Stride of the one map from which a teacher makes all others; None where each is its network's own."""
    return getattr(teacher, "resampled_from", None)


def shared_classes(teacher: Teacher, names: Mapping[int, str]) -> list[tuple[int, int]]:
    """Match the data's classes with the teacher's by name.

    Args:
        teacher: For the classes that it knows.
        names: The data's class names by index.

    Returns:
        Index in the data and in the teacher of each class that both know.
    """
    known = {name: index for index, name in (teacher.class_names or {}).items()}
    return [(int(index), known[str(name)]) for index, name in names.items() if str(name) in known]
