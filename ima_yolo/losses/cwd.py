"""Channel-wise distillation (CWD): match where each channel is active."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from ima_yolo.losses.base import LevelLoss
from ima_yolo.masks import Regions


def cwd_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Divergence between the spatial distributions of each channel.

    .. math:: L = \frac{\tau^2}{NC} \sum_{n,c} \sum_i \phi(F^T_{nc})_i
              \log \frac{\phi(F^T_{nc})_i}{\phi(F^S_{nc})_i}, \quad \phi(x) = softmax(x / \tau)

    over all positions i of channel c. Reference: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction,
    arXiv 2011.13256, eq. 3-5.

    Args:
        student: F^S after the adapter, (N, C, H, W).
        teacher: F^T, (N, C, H, W).
        temperature: tau > 0; higher takes in a wider area.

    Returns:
        Scalar; 0 where the maps are equal up to a constant of each channel.
    """
    student_log = log_softmax(student.flatten(2) / temperature, dim=2)  # (N, C, H, W) -> (N, C, H*W)
    teacher_log = log_softmax(teacher.flatten(2) / temperature, dim=2)
    divergence = kl_div(student_log, teacher_log, reduction="sum", log_target=True)
    return divergence * temperature**2 / (student.shape[0] * student.shape[1])


class CWDLoss(LevelLoss):
    """Adapter, then `cwd_loss`.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        always_adapt: Learn a 1x1 adapter even where the channels agree.
        temperature: tau > 0.
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, always_adapt: bool = True, temperature: float = 1.0
    ) -> None:
        """Build the adapter."""
        super().__init__(student_channels, teacher_channels, always_adapt)
        self.temperature = temperature

    def compare(self, aligned: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return `cwd_loss` of the level."""
        return cwd_loss(aligned, teacher, self.temperature)
