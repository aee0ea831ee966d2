"""What every feature loss of one pyramid level shares: its adapter, single precision, and the teacher's map at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ima_yolo.align import adapter
from ima_yolo.features import same_size
from ima_yolo.masks import Regions


class LevelLoss(nn.Module):
    """A feature loss at one stride: adapts the student's map, then compares it with the teacher's.

    Subclasses define `compare`. It runs outside autocast in float32, since means, variances and sums of squares over a
    map lose their digits in half precision.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        always_adapt: Learn a 1x1 adapter even where the channels agree.
        bias: Whether the adapter has one.
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, always_adapt: bool = True, bias: bool = True
    ) -> None:
        """Build the adapter."""
        super().__init__()
        self.adapter = adapter(student_channels, teacher_channels, always_adapt, bias)

    def forward(self, student: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return the loss of one level.

        Args:
            student: (B, C_s, H, W), with gradient.
            teacher: (B, C_t, H_t, W_t), without; resampled where its size differs.
            stride: Image pixels per cell of the student's map.
            regions: The objects of the batch, in pixels.

        Returns:
            Scalar float32.
        """
        aligned = self.align(student)
        with torch.autocast(student.device.type, enabled=False):
            return self.compare(aligned.float(), same_size(teacher.float(), student), stride, regions)

    def align(self, student: Tensor) -> Tensor:
        """Bring the student's map (B, C_s, H, W) to the teacher's channels, (B, C_t, H, W)."""
        return self.adapter(student)

    def compare(self, aligned: Tensor, teacher: Tensor, stride: int, regions: Regions) -> Tensor:
        """Return the scalar loss between (B, C_t, H, W) float32 maps."""
        raise NotImplementedError
