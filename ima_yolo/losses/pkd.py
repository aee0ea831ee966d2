"""Pearson knowledge distillation (PKD): match features up to scale and shift of each channel."""

from __future__ import annotations

from torch import Tensor

from ima_yolo.align import standardize
from ima_yolo.losses.base import LevelLoss
from ima_yolo.masks import Regions


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Half the squared error of features standardised over the whole batch: one minus their correlation.

    .. math:: L = \frac{1}{2 NCHW} \sum (\hat F^T - \hat F^S)^2 = \frac{1}{C} \sum_c (1 - \rho_c)

    with each channel at zero mean and unit variance over all images and positions, and rho_c its Pearson correlation.
    Reference: Cao et al., PKD: General Distillation Framework for Object Detectors via Pearson Correlation
    Coefficient, arXiv 2207.02039, eq. 3-5. Unlike instance standardization it keeps what differs between images.

    Args:
        student: F^S after the adapter, (N, C, H, W).
        teacher: F^T, (N, C, H, W).

    Returns:
        Scalar in [0, 2]; 0 where each channel agrees up to a positive scale and a shift.
    """
    # (N, C, H, W) -> (1, C, N*H, W): the whole batch as one instance
    student, teacher = (f.transpose(0, 1).flatten(1, 2)[None] for f in (student, teacher))
    return (standardize(teacher) - standardize(student)).square().mean() / 2


class PKDLoss(LevelLoss):
    """Adapter, then `pkd_loss`."""

    def compare(self, aligned: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return `pkd_loss` of the level."""
        return pkd_loss(aligned, teacher)
