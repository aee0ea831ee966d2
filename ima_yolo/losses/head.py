"""Distillation of the head: class scores and boxes of every cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import complete_box_iou_loss

from ima_yolo.align import images_at_a_time

LEAST = 0.01  # pixels
SURE = 0.1  # confidence from which on a cell tells that a class is there


class _QualityFocal(torch.autograd.Function):
    r"""Sum of :math:`(p^T - p^S)^2 \, BCE(p^S, p^T)`, with its gradient in closed form.

    With d = p^T - p^S the gradient by the logit is :math:`-d \, (2 p^S (1 - p^S) \, BCE + d^2)`. One tensor is kept for
    the backward pass instead of one for each operation, and the terms on the heads take a third of the time.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, target: Tensor) -> Tensor:
        """Return the sum; `student` are logits, `target` probabilities, both (B, A, K)."""
        slope = torch.empty_like(student)
        size = images_at_a_time(student)
        parts = zip(student.split(size), target.split(size), slope.split(size), strict=True)
        total = sum((_score_part(*part) for part in parts), start=student.new_zeros(()))
        ctx.save_for_backward(slope)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient by the logits."""
        (slope,) = ctx.saved_tensors
        return slope * gradients[0], None


def _score_part(student: Tensor, target: Tensor, slope: Tensor) -> Tensor:
    """The sum over some cells, (..., K); writes its gradient by their logits into `slope`."""
    scores = student.sigmoid()
    distance = target - scores
    entropy = binary_cross_entropy_with_logits(student, target, reduction="none")
    square = distance.square()
    total = (square * entropy).sum()
    entropy.mul_(scores.mul_(1 - scores)).mul_(2).add_(square)
    torch.mul(entropy, distance.neg_(), out=slope)
    return total


def score_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Quality focal loss of the student's class scores against the teacher's soft ones.

    .. math:: L = \frac{1}{\sum_a \max_k p^T_{ak}} \sum_{a,k} (p^T_{ak} - p^S_{ak})^2 \, BCE(p^S_{ak}, p^T_{ak})

    over cells a and classes k. Its minimum over p^S is at p^T, where the modulating factor makes it 0. Reference:
    Generalized Focal Loss, arXiv 2006.04388, eq. 3 with its beta = 2 and the teacher's score as the soft label, as in
    CrossKD, arXiv 2306.11369; the sum of the teacher's confidence stands for the number of positives.

    Args:
        student: Logits, (B, A, K).
        teacher: Logits, (B, A, K), without gradient.

    Returns:
        Scalar; 0 where the scores are equal.
    """
    target = teacher.sigmoid()
    return _QualityFocal.apply(student, target) / target.amax(dim=2).sum().clamp(min=1.0)


def box_loss(student: Tensor, teacher: Tensor, confidence: Tensor) -> Tensor:
    r"""Complete IoU loss between the boxes of each cell, weighted by the teacher's confidence.

    .. math:: L = \frac{1}{\sum_a c_a} \sum_a c_a \, (1 - CIoU(b^S_a, b^T_a))

    Reference: CIoU, arXiv 1911.08287; weighting by the teacher as in arXiv 2306.11369.

    Args:
        student: xyxy in pixels, (B, A, 4).
        teacher: xyxy in pixels, (B, A, 4).
        confidence: c in [0, 1], (B, A), or what `balanced` makes of it.

    Returns:
        Scalar; 0 where the boxes are equal. Boxes without width or height count as a hundredth of a pixel wide or high:
        the aspect ratio of CIoU is no number there.
    """
    own, other = (_extended(boxes.flatten(0, 1)) for boxes in (student, teacher))  # (B, A, 4) -> (B*A, 4)
    loss = complete_box_iou_loss(own, other)
    return (loss * confidence.flatten()).sum() / confidence.sum().clamp(min=1.0)


def balanced(confidence: Tensor, kinds: Tensor, classes: int, power: float) -> Tensor:
    r"""Weights of cells by which a class of few cells counts more than its cells do.

    .. math:: w_a \propto c_a f_a, \quad f_a = (1 + n_{k(a)})^{-\beta} \text{ where } c_a \ge 0.1, \text{ else }
        \min_k (1 + n_k)^{-\beta}, \quad n_k = \sum_{a : k(a) = k, c_a \ge 0.1} c_a

    With :math:`\beta = 0` each cell counts by its confidence, and classes by how many cells they fill; with 1 every
    class in the batch counts about alike, as it does in the mean over classes that mAP is; 1/2 is the square root by
    which long-tailed data are often sampled (arXiv 1805.00932). Cells below 0.1 count as the class does that has most:
    many that say next to nothing would otherwise speak for a class that is not there.

    Args:
        confidence: c in [0, 1], (B, A).
        kinds: k, the class that each cell says, (B, A), whole numbers.
        classes: How many there are.
        power: :math:`\beta` in [0, 1].

    Returns:
        (B, A), with the sum of the confidences.
    """
    sure = confidence >= SURE
    filled = confidence.new_zeros(classes).index_add_(0, kinds.flatten(), (confidence * sure).flatten())
    factors = (1 + filled).pow(-power)
    weights = confidence * torch.where(sure, factors[kinds], factors.min())
    return weights * (confidence.sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny))


def _extended(boxes: Tensor) -> Tensor:
    """Give xyxy boxes, (N, 4), the least extent."""
    near, far = boxes.chunk(2, dim=1)
    return torch.cat([near, torch.maximum(far, near + LEAST)], dim=1)
