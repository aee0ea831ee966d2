"""Instance Mask Alignment: masked distillation, then instance standardization and adaptive scale deflation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ima_yolo.align import LightGenerator, box_instances, boxes_of_level, centre, deflate, generator, standardize
from ima_yolo.features import same_size
from ima_yolo.losses.base import LevelLoss
from ima_yolo.losses.region import region_ids, region_loss
from ima_yolo.masks import Regions, mask_frequency, mask_spatial, position_weights
from ima_yolo.moments import adapted_error, standardized_error

MASKS = {"spatial": mask_spatial, "frequency": mask_frequency}


def ima_loss(
    student: Tensor,
    teacher: Tensor,
    standardized: str = "both",
    deflation: str = "weight",
    floor: float = 0.1,
    weights: Tensor | None = None,
) -> Tensor:
    r"""Squared error of two sets of instances after the cascade of standardization and deflation.

    .. math:: L_{FMask} = \frac{1}{N} \sum_n \frac{w_n}{C \sum_{ij} W_{nij}}
              \sum_{c,i,j} W_{nij} (g(F^T)_{ncij} - \gamma_n g(\hat F^S)_{ncij})^2

    g is instance standardization; gamma_n or w_n comes from adaptive scale deflation (see `ima_yolo.align.deflate`);
    W are weights of positions, 1 if not given. Reference: Guo, Zhang, Liang, Sci Rep 15:32813 (2025), L_FMask and the
    cascade alignment module. With ``standardized="none", deflation="none"`` it is the paper's plain L_KD.

    The paper's equation standardises the student alone; its theory part minimises the divergence of g(p_T) and g(p_S).
    Standardising one side leaves a unit-variance student chasing a raw teacher's scale, so "both" is the default and
    "student" the literal reading.

    Args:
        student: Masked and restored student, (N, C, H, W), N instances.
        teacher: (N, C, H, W).
        standardized: "both", "student" or "none".
        deflation: "weight", "shifted", "floor", "cosine" or "none".
        floor: Smallest gamma of ``deflation="floor"``.
        weights: (N, 1, H, W) weights of positions, at least one of an instance above 0 for it to count.

    Returns:
        Scalar. Identical inputs give 0 in every form that treats both sides alike; no instance gives 0.

    Note:
        This is the definition. Where both sides are standardised and no position is weighted, training takes the closed
        form of `ima_yolo.moments.standardized_error`, which is equal up to rounding and much cheaper.
    """
    if student.shape[0] == 0:
        return student.sum()  # keeps the graph, so that every rank has a gradient for every parameter
    if standardized != "none":
        student = standardize(student)
    if standardized == "both":
        teacher = standardize(teacher)
    student, instance_weight = deflate(student, teacher, deflation, floor)
    error = (teacher - student).square().mean(dim=1, keepdim=True)  # (N, C, H, W) -> (N, 1, H, W)
    if weights is None:
        by_instance = error.mean(dim=(1, 2, 3))
    else:
        by_instance = (error * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp(min=1e-6)
    return (by_instance if instance_weight is None else by_instance * instance_weight).mean()


class IMALoss(LevelLoss):
    """Adapter, mask, generator, choice of instances, then `ima_loss`, in its closed form where there is one.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        always_adapt: Learn a 1x1 adapter even where the channels agree.
        mask: "spatial", "frequency" or "none".
        mask_ratio: zeta in [0, 1); 0 equals no mask.
        restore: How the masked map is restored: "conv" (3x3-ReLU-3x3 at the teacher's width, after the adapter),
            "light" (depthwise, at the student's width, mask and generator before the adapter) or "none".
        instance: "image" (each image is one instance, the literal N x C x H x W), "box" (each object is one) or
            "region" (the pixels of each class in each image are one, for semantic segmentation).
        box_size: Cells of a side of a box instance.
        finest: Whether this is the finest level in use: it then keeps objects of every size.
        standardized: See `ima_loss`.
        deflation: See `ima_loss`.
        floor: See `ima_loss`.
        objects: Weights of positions, "none", "gt" or "teacher"; for image instances.
        background: Weight in [0, 1] of positions outside objects.
        rng: Source of the masks, on the device of the maps.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        always_adapt: bool = True,
        mask: str = "spatial",
        mask_ratio: float = 0.5,
        restore: str = "light",
        instance: str = "image",
        box_size: int = 7,
        finest: bool = True,
        standardized: str = "both",
        deflation: str = "weight",
        floor: float = 0.1,
        objects: str = "none",
        background: float = 0.0,
        rng: torch.Generator | None = None,
    ) -> None:
        """Build adapter and generator."""
        self.closed = standardized == "both" and objects == "none"
        masked = mask != "none" and mask_ratio > 0
        before = restore == "light" or (restore == "none" and not masked)  # nothing follows the adapter
        # Centring commutes with the adapter, which is linear, and costs least at the student's width.
        self.centred_before = self.closed and before and instance == "image"
        super().__init__(student_channels, teacher_channels, always_adapt, bias=not before or standardized == "none")
        self.generator = _restorer(restore, student_channels, teacher_channels)
        self.before = before
        self.mask = MASKS[mask] if masked else None
        self.mask_ratio = mask_ratio
        self.instance, self.box_size, self.finest = instance, box_size, finest
        self.standardized, self.deflation, self.floor = standardized, deflation, floor
        self.objects, self.background = objects, background
        self.rng = rng
        # an adapter that nothing follows is applied inside the closed form, which keeps no adapted map
        self.fused = self.centred_before and isinstance(self.adapter, nn.Conv2d)

    def forward(self, student: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return the loss of one level, as `LevelLoss` does."""
        if not self.fused or not len(student):
            return super().forward(student, teacher, stride, regions)
        return self.compare_restored(self.restore(student), teacher)

    def compare_restored(self, restored: Tensor, teacher: Tensor) -> Tensor:
        """Adapt a restored map, (B, C_s, H, W), and compare it with the teacher's, both in the closed form."""
        with torch.autocast(restored.device.type, enabled=False):
            target = teacher if teacher.shape[2:] == restored.shape[2:] else same_size(teacher.float(), restored)
            weight = self.adapter.get_parameter("weight").flatten(1).float()  # (C_t, C_s, 1, 1) -> (C_t, C_s)
            return adapted_error(centre(restored.float()), weight, target, self.deflation, self.floor)

    def align(self, student: Tensor) -> Tensor:
        """Adapt the student's map (B, C_s, H, W), a light generator having restored it first."""
        restored = self.restore(student) if self.before else student
        return self.adapter(centre(restored) if self.centred_before else restored)

    def restore(self, features: Tensor) -> Tensor:
        """Mask and generate, at the width of `features`."""
        return self.generator(self.hide(features))

    def hide(self, features: Tensor) -> Tensor:
        """Mask, at the width of `features`."""
        return features if self.mask is None else self.mask(features, self.mask_ratio, self.rng)

    def compare(self, aligned: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return `ima_loss` of the level under a fresh mask."""
        student = aligned if self.before else self.restore(aligned)
        weights = None
        if self.instance == "region" and regions.classes is not None:
            ids = region_ids(regions.classes, (teacher.shape[2], teacher.shape[3]))
            return region_loss(student, teacher, ids, self.standardized, self.deflation, self.floor)
        if self.instance == "box":
            boxes = boxes_of_level(regions.boxes, stride, self.finest)
            student, teacher = (box_instances(f, boxes, stride, self.box_size) for f in (student, teacher))
        else:
            shape = (teacher.shape[0], teacher.shape[2], teacher.shape[3])
            weights = position_weights(self.objects, regions, shape, stride, self.background)
        if self.closed and student.shape[0]:
            student = student if self.centred_before else centre(student)
            return standardized_error(student, teacher, self.deflation, self.floor)
        return ima_loss(student, teacher, self.standardized, self.deflation, self.floor, weights)


def _restorer(restore: str, student_channels: int, teacher_channels: int) -> nn.Module:
    if restore == "none":
        return nn.Identity()
    return LightGenerator(student_channels) if restore == "light" else generator(teacher_channels)
