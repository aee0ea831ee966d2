"""From the settings and fitted teachers to a distiller: each value is handed over by name, here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ima_yolo.config import Settings
from ima_yolo.criterion import Panel, build_criterion, build_head_terms, build_weight
from ima_yolo.distill import Distiller
from ima_yolo.features import Features
from ima_yolo.teachers.view import View


def build_distiller(
    settings: Settings,
    teachers: Sequence[View],
    student: Features,
    device: torch.device,
    seed: int,
    rank: int = 0,
    names: Mapping[int, str] | None = None,
    gains: Mapping[str, float] | None = None,
    compared: Sequence[bool] | None = None,
) -> Distiller:
    """Build what the settings ask for, for teachers that are fitted to the student.

    Args:
        settings: What the user chose.
        teachers: Frozen, and fitted to the student.
        student: Probe of the student, for its channels.
        device: Training device.
        seed: Seed of adapters and masks.
        rank: Index of this process; each draws masks of its own.
        names: The data's class names by index; needed for terms on the heads.
        gains: Gains of the task's own losses, "cls" and "box"; needed for terms on the heads.
        compared: Whether each teacher's head enters the terms on the heads, if there are any; all if None.
    """
    rng = torch.Generator(device=device)
    rng.manual_seed(seed + rank)
    student_channels = dict(zip(student.strides, student.channels, strict=True))
    criteria = []
    for view in teachers:
        view.teacher.to(device)
        criteria.append(build_criterion(settings, view.strides, student_channels, view.channels, rng, seed))
    heads = [
        build_head_terms(settings, view.teacher, names or {}, gains or {}) if takes_part else None
        for view, takes_part in zip(teachers, compared or (True,) * len(teachers), strict=True)
    ]
    return Distiller(
        teachers,
        Panel(criteria, settings.shares).to(device),
        build_weight(settings),
        rng,
        kind=settings.ima_schedule,
        off=settings.ima_off,
        confidence=settings.needs_confidence,
        teacher_boxes=settings.needs_teacher_boxes,
        heads=heads,
        share=settings.ima_batch_share,
        every=settings.ima_every,
    )
