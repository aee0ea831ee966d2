"""Plain feature distillation: mean squared error."""

from __future__ import annotations

from torch import Tensor

from ima_yolo.losses.base import LevelLoss
from ima_yolo.masks import Regions


def l2_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared error of two feature maps.

    .. math:: L_{KD} = \frac{1}{NCHW} \sum_{n,c,i,j} (F^T_{ncij} - F^S_{ncij})^2

    Reference: Guo et al. 2025 (Sci Rep 15:32813), conventional feature distillation; FitNets, arXiv 1412.6550, eq. 3.

    Args:
        student: F^S after the adapter, (N, C, H, W).
        teacher: F^T, (N, C, H, W).

    Returns:
        Scalar; 0 where the maps are equal.

    Examples:
        >>> import torch
        >>> float(l2_loss(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0)))
        9.0
    """
    return (teacher - student).square().mean()


class L2Loss(LevelLoss):
    """Adapter, then `l2_loss`."""

    def compare(self, aligned: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return `l2_loss` of the level."""
        return l2_loss(aligned, teacher)
