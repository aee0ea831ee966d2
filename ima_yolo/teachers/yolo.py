"""Teachers that are Ultralytics checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xyxy2xywh

from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions, tap
from ima_yolo.host import DETECTION_HEADS, class_names, load_model, neck, probe, task_of
from ima_yolo.host import predictions as read_head
from ima_yolo.teachers import TeacherOutput
from ima_yolo.teachers.graph import Graph, build_graph
from ima_yolo.teachers.half import build_half
from ima_yolo.teachers.module import cropped, freeze, padded, weights_digest

NMS_IOU = 0.7  # Ultralytics' default at prediction
LAYOUT = torch.channels_last  # the order of memory that convolutions take fastest, on processors as on GPUs


class YOLOTeacher:
    """A frozen Ultralytics model.

    It is no `nn.Module`, so that hanging it on one never puts its weights into that module's parameters, state or
    checkpoints. Batch norms are folded into their convolutions: the teacher's only job is a fast forward pass.

    Args:
        path: Checkpoint (.pt).
        conf: Least score of a detection that counts as a box.

    Raises:
        IMAError: If the file cannot be loaded safely, or is no detector with a feature pyramid.
    """

    def __init__(self, path: str | Path, conf: float = 0.25) -> None:
        """Load, check and freeze."""
        self.name = str(path)
        self._conf = conf
        model, _ = load_model(path, "teacher", reopened=True)  # to measure it beside the student
        if task_of(model) == "classify":
            raise IMAError(f"teacher={path}: a classification model has no feature pyramid; give a detector")
        self.class_names: dict[int, str] | None = class_names(model)
        self.input_channels = int(model.yaml.get("channels", 3))
        if hasattr(model, "end2end"):
            model.end2end = False  # fusing keeps one head: the one-to-many one, which scores every cell
        self._model = freeze(model.fuse(verbose=False)).to(memory_format=LAYOUT)
        self._head, self._levels = neck(self._model)
        self.predicts = type(self._head).__name__ in DETECTION_HEADS
        features = probe(self._model, self.input_channels)
        self.strides, self.channels = features.strides, features.channels
        self._graphs: dict[bool, Graph | None] | None = None  # by whether the head belongs to it; None is PyTorch
        self._multiple = max(*self.strides, int(model.stride.max()))  # layers below the neck may be coarser
        self._dtype: torch.dtype | None = None  # of the images that it is shown, if not their own
        self._rounded_from: dict[str, str] = {}  # digest of rounded weights -> of those that they were

    def to(self, device: torch.device) -> YOLOTeacher:
        """Move to a device and return itself."""
        self._model.to(device)
        return self

    def digest(self) -> str:
        """SHA-256 over names and bytes of all weights, as they were before any rounding."""
        found = weights_digest(self._model)
        return self._rounded_from.get(found, found)

    @property
    def runtime(self) -> str:
        """What it has looked at images with, in the words of `ima_teacher_runtime`."""
        if self._dtype is not None:
            return "bf16"
        return "onnx" if any((self._graphs or {}).values()) else "torch"

    def by_graph(self) -> None:
        """Look at images by ONNX Runtime from now on, where that can be; it is of use on a CPU."""
        self._graphs = {}

    def by_half(self) -> bool:
        """Look at images in bfloat16 from now on, up to the head, and return whether that can be; only on a CPU."""
        if self._dtype is not None:
            return True
        side = 4 * self._multiple
        half = build_half(self.name, self._model, self._head, self._levels, self.input_channels, side)
        if half is None:
            return False
        own = weights_digest(self._model)
        self._model, self._dtype = half, next(half.parameters()).dtype  # the weights in float32 are let go
        self._head, self._levels = neck(half)
        self._rounded_from = {weights_digest(half): own}
        return True

    def _look(self, images: Tensor, run_head: bool) -> tuple[list[Tensor], Any]:
        """Maps of padded images, and what the head returned if it was run."""
        graph = self._graph(run_head) if images.device.type == "cpu" and images.dtype == torch.float32 else None
        if graph is not None:
            return graph(images)
        with tap(self._head, self._levels, stop=not run_head) as caught:
            self._model(images.to(self._dtype or images.dtype).contiguous(memory_format=LAYOUT))
        maps = caught.maps or []
        # the head was given them in float32; they hold no more than what was rounded, and wait in half the memory
        return [level.to(self._dtype or level.dtype) for level in maps], caught.output

    def _graph(self, run_head: bool) -> Graph | None:
        """The graph for this, built when it is first needed; one with the head serves without it too."""
        if self._graphs is None:
            return None
        if self._graphs.get(True) is not None:
            return self._graphs[True]
        if run_head not in self._graphs:
            parts = self._model, self._head, self._levels, self.input_channels
            self._graphs[run_head] = build_graph(self.name, *parts, run_head, self._multiple)
        return self._graphs[run_head]

    @torch.no_grad()
    def __call__(
        self, images: Tensor, confidence: bool = False, boxes: bool = False, predictions: bool = False
    ) -> TeacherOutput:
        """Look at images.

        Args:
            images: (B, C, H, W) RGB in [0, 1].
            confidence: Also give the confidence of each cell.
            boxes: Also give detections above the confidence threshold.
            predictions: Also give scores and boxes of every cell.
        """
        run_head = confidence or boxes or predictions
        maps, output = self._look(padded(images, self._multiple), run_head)
        size, said = images.shape[2:], read_head(self._head, output) if run_head else None
        scored = _confidence(said, maps) if said and confidence else []
        return TeacherOutput(
            Features(cropped(maps, self.strides, size), self.strides),
            dict(zip(self.strides, cropped(scored, self.strides, size), strict=True)) if scored else None,
            _boxes(said, self._conf) if said and boxes else None,
            said,
        )


def _confidence(said: Predictions, maps: Sequence[Tensor]) -> list[Tensor]:
    """Highest class score of each cell, (B, 1, H, W) for each map."""
    scores = said.scores.sigmoid().amax(dim=2)[:, None]  # (B, A, K) -> (B, 1, A)
    cells = [level.shape[2] * level.shape[3] for level in maps]
    parts = scores.split(cells, dim=2)
    return [part.unflatten(2, level.shape[2:]) for level, part in zip(maps, parts, strict=True)]  # H*W -> H, W


def _boxes(said: Predictions, conf: float) -> Tensor:
    corners = xyxy2xywh(said.boxes)  # the form that NMS takes
    found = non_max_suppression(
        torch.cat([corners, said.scores.sigmoid()], dim=2).transpose(1, 2),
        conf_thres=conf,
        iou_thres=NMS_IOU,
        max_time_img=math.inf,  # the same boxes on a busy machine
    )
    rows = [torch.cat([kept.new_full((len(kept), 1), index), kept[:, :4]], dim=1) for index, kept in enumerate(found)]
    return torch.cat(rows)
