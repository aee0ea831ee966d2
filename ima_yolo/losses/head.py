"""Distillation of the head: class scores and boxes of every cell."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import complete_box_iou_loss

LEAST = 0.01  # pixels


def score_loss(student: Tensor, teacher: Tensor, beta: float = 2.0) -> Tensor:
    r"""Quality focal loss of the student's class scores against the teacher's soft ones.

    .. math:: L = \frac{1}{\sum_a \max_k p^T_{ak}} \sum_{a,k} |p^T_{ak} - p^S_{ak}|^\beta \, BCE(p^S_{ak}, p^T_{ak})

    over cells a and classes k. Its minimum over p^S is at p^T, where the modulating factor makes it 0. Reference:
    Generalized Focal Loss, arXiv 2006.04388, eq. 3, with the teacher's score as the soft label as in CrossKD,
    arXiv 2306.11369; the sum of the teacher's confidence stands for the number of positives.

    Args:
        student: Logits, (B, A, K).
        teacher: Logits, (B, A, K), without gradient.
        beta: Focus on cells where the two differ, >= 0.

    Returns:
        Scalar; 0 where the scores are equal and beta > 0.
    """
    target = teacher.sigmoid()
    error = (target - student.sigmoid()).abs().pow(beta)
    entropy = binary_cross_entropy_with_logits(student, target, reduction="none")
    return (error * entropy).sum() / target.amax(dim=2).sum().clamp(min=1.0)


def box_loss(student: Tensor, teacher: Tensor, confidence: Tensor) -> Tensor:
    r"""Complete IoU loss between the boxes of each cell, weighted by the teacher's confidence.

    .. math:: L = \frac{1}{\sum_a c_a} \sum_a c_a \, (1 - CIoU(b^S_a, b^T_a))

    Reference: CIoU, arXiv 1911.08287; weighting by the teacher as in arXiv 2306.11369.

    Args:
        student: xyxy in pixels, (B, A, 4).
        teacher: xyxy in pixels, (B, A, 4).
        confidence: c in [0, 1], (B, A).

    Returns:
        Scalar; 0 where the boxes are equal. Boxes without width or height count as a hundredth of a pixel wide or high:
        the aspect ratio of CIoU is no number there.
    """
    own, other = (_extended(boxes.flatten(0, 1)) for boxes in (student, teacher))  # (B, A, 4) -> (B*A, 4)
    loss = complete_box_iou_loss(own, other)
    return (loss * confidence.flatten()).sum() / confidence.sum().clamp(min=1.0)


def _extended(boxes: Tensor) -> Tensor:
    """Give xyxy boxes, (N, 4), the least extent."""
    near, far = boxes.chunk(2, dim=1)
    return torch.cat([near, torch.maximum(far, near + LEAST)], dim=1)
