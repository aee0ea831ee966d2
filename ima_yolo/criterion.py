"""The distillation criterion: one feature loss a pyramid level, built from the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ima_yolo.config import Settings
from ima_yolo.features import Features
from ima_yolo.losses import CWDLoss, IMALoss, L2Loss, LevelLoss, MGDLoss, PKDLoss
from ima_yolo.masks import Regions
from ima_yolo.weighting import AutoWeight, FixedWeight


class Criterion(nn.Module):
    """Mean of the feature losses of all levels in use.

    Args:
        levels: A loss for each stride.
    """

    def __init__(self, levels: Mapping[int, LevelLoss]) -> None:
        """Register the losses, so that their adapters are trained."""
        super().__init__()
        self.strides = tuple(sorted(levels))
        self.levels = nn.ModuleDict({str(stride): levels[stride] for stride in self.strides})

    def forward(self, student: Features, teacher: Features, regions: Regions) -> Tensor:
        """Return the scalar float32 mean over levels.

        Args:
            student: Maps with gradient.
            teacher: Maps without.
            regions: The objects of the batch.
        """
        losses = [
            self.levels[str(stride)](student.at(stride), teacher.at(stride), stride, regions) for stride in self.strides
        ]
        return torch.stack(losses).mean()


def build_criterion(
    settings: Settings,
    strides: Sequence[int],
    student_channels: Mapping[int, int],
    teacher_channels: Mapping[int, int],
    rng: torch.Generator,
    seed: int,
) -> Criterion:
    """Build the criterion that the settings ask for.

    The new layers draw their weights from a stream of their own: the student's data order and initial weights are the
    same with distillation as without.

    Args:
        settings: What the user chose.
        strides: Levels in use.
        student_channels: Channels of the student at each stride.
        teacher_channels: Channels of the teacher at each stride.
        rng: Source of the masks, on the training device.
        seed: Seed of the new layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        levels = {
            stride: _level(settings, student_channels[stride], teacher_channels[stride], stride == min(strides), rng)
            for stride in strides
        }
    return Criterion(levels)


def build_weight(settings: Settings) -> AutoWeight | FixedWeight:
    """Build the weight that the settings ask for."""
    if settings.ima_weight == "auto":
        return AutoWeight(settings.ima_weight_ratio)
    return FixedWeight(float(settings.ima_weight))


def _level(settings: Settings, student: int, teacher: int, finest: bool, rng: torch.Generator) -> LevelLoss:
    always = settings.ima_adapter == "always"
    if settings.ima_loss == "l2":
        return L2Loss(student, teacher, always)
    if settings.ima_loss == "pkd":
        return PKDLoss(student, teacher, always)
    if settings.ima_loss == "cwd":
        return CWDLoss(student, teacher, always, settings.ima_temperature)
    if settings.ima_loss == "mgd":
        return MGDLoss(student, teacher, always, settings.ima_mask_ratio, rng)
    return IMALoss(
        student,
        teacher,
        always,
        mask=settings.ima_mask,
        mask_ratio=settings.ima_mask_ratio,
        restore=settings.restore,
        instance=settings.ima_instance,
        box_size=settings.ima_box_size,
        finest=finest,
        standardized=settings.ima_standardize,
        deflation=settings.ima_deflation,
        floor=settings.ima_deflation_floor,
        objects=settings.ima_objects,
        background=settings.ima_background,
        rng=rng,
    )
