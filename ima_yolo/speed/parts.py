"""The parts of our step, each timed alone on the maps of a real step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ima_yolo import host
from ima_yolo.features import Features, Predictions, tap
from ima_yolo.labels import regions_of
from ima_yolo.speed.steps import Case, Step
from ima_yolo.weighting import gradient_norm


def build_parts(case: Case, device: torch.device, teacher_path: Path) -> dict[str, Callable[[], Any]]:
    """Build the parts of our step: what `ima_yolo.distill` adds to a plain step.

    Returns:
        By name: the student alone with and without taps; the teacher up to the neck, and with its head and the terms on
        it where they are on; mask and generator of all levels; adapter and comparison, which are one for the default;
        both with their backward pass; and the measurement of the automatic weight.
    """
    step = Step(case, "ours", device, teacher_path)
    student: Any = step.model
    distiller = student.ima
    batch = step.batch
    head, levels = host.neck(student)
    with tap(head, levels) as caught:
        student(batch["img"])
    maps = [level.detach().requires_grad_(True) for level in caught.maps or []]
    own = Features.of_image(maps, case.imgsz)
    (teacher,) = distiller.teachers
    seen = teacher(batch["img"])
    criterion = distiller.criterion.members[0]
    regions = regions_of(batch, seen)

    def tapped() -> None:
        with torch.no_grad(), tap(head, levels):
            student(batch["img"])

    return {
        "student, no gradient": lambda: _quietly(student, batch["img"]),
        "student with taps": tapped,
        "teacher to neck": lambda: teacher(batch["img"]),
        **_of_heads(distiller, teacher, batch["img"]),
        **_of_maps(criterion, own, seen.features),
        "all of it, forward": lambda: criterion(own, seen.features, regions),
        "all of it, forward and backward": lambda: criterion(own, seen.features, regions).backward(),
        "automatic weight, one measurement": lambda: gradient_norm(criterion(own, seen.features, regions), maps),
    }


def _of_heads(distiller: Any, teacher: Any, images: Tensor) -> dict[str, Callable[[], Any]]:
    (terms,) = distiller.heads
    if terms is None:
        return {}
    said = teacher(images, predictions=True).predictions
    own = Predictions(said.scores.clone().requires_grad_(True), said.boxes.clone().requires_grad_(True))
    return {
        "teacher with head": lambda: teacher(images, predictions=True),
        "terms on the heads, forward and backward": lambda: sum(terms(own, said).values()).backward(),
    }


def _of_maps(criterion: Any, own: Features, seen: Features) -> dict[str, Callable[[], Any]]:
    """The steps of the default loss; other losses have none that could be told apart."""
    levels = {stride: criterion.levels[str(stride)] for stride in criterion.strides}
    if not all(getattr(level, "fused", False) for level in levels.values()):
        return {}
    restored = {stride: level.restore(own.at(stride)).detach() for stride, level in levels.items()}

    def compare() -> None:
        with torch.no_grad():
            for stride, level in levels.items():
                level.compare_restored(restored[stride], seen.at(stride))

    return {
        "mask and generator": lambda: [level.restore(own.at(stride)) for stride, level in levels.items()],
        "adapter and comparison": compare,
    }


def _quietly(student: Any, images: Tensor) -> None:
    with torch.no_grad():
        student(images)
