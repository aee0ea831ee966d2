"""Masked generative distillation (MGD): hide positions of the student, generate the teacher's full map."""

from __future__ import annotations

import torch
from torch import Tensor

from ima_yolo.align import generator
from ima_yolo.losses.base import LevelLoss
from ima_yolo.masks import Regions, mask_spatial


def mgd_loss(generated: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared error between the generated and the teacher's map, summed over the map and averaged over images.

    .. math:: L = \frac{1}{N} \sum_{n,c,i,j} (F^T_{ncij} - G(f_{align}(F^S) \cdot M)_{ncij})^2

    Reference: Yang et al., Masked Generative Distillation, arXiv 2205.01529, eq. 4-5. The paper sums over one image;
    the mean over the batch follows its published loss scale, whose weight for one-stage detectors is 2e-5.

    Args:
        generated: G(f_align(F^S) * M), (N, C, H, W).
        teacher: F^T, (N, C, H, W).

    Returns:
        Scalar; 0 where the maps are equal.

    Examples:
        >>> import torch
        >>> float(mgd_loss(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)))
        4.0
    """
    return (teacher - generated).square().sum() / teacher.shape[0]


class MGDLoss(LevelLoss):
    """Adapter, random spatial mask, generator, then `mgd_loss`.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        always_adapt: Learn a 1x1 adapter even where the channels agree.
        mask_ratio: lambda in [0, 1), the share of hidden positions; the paper uses 0.65 for one-stage detectors.
        rng: Source of the masks, on the device of the maps.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        always_adapt: bool = True,
        mask_ratio: float = 0.65,
        rng: torch.Generator | None = None,
    ) -> None:
        """Build adapter and generator."""
        super().__init__(student_channels, teacher_channels, always_adapt)
        self.generator = generator(teacher_channels)
        self.mask_ratio = mask_ratio
        self.rng = rng

    def compare(self, aligned: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return `mgd_loss` of the level under a fresh mask."""
        return mgd_loss(self.generator(mask_spatial(aligned, self.mask_ratio, self.rng)), teacher)
