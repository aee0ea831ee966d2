"""The squared error of standardised features from their second moments, without storing a standardised feature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ima_yolo.align import EPS, centre, deflation


class _Moments(torch.autograd.Function):
    """Per-channel mean of s*s and of s*t; one pass over the maps in each direction, and no map is stored anew."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(student, teacher)
        count = student.shape[2]
        return torch.linalg.vecdot(student, student) / count, torch.linalg.vecdot(student, teacher) / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_variance: Tensor, by_covariance: Tensor) -> tuple[Tensor, None]:
        student, teacher = ctx.saved_tensors
        count = student.shape[2]
        gradient = student * (by_variance * (2.0 / count))[:, :, None]
        return gradient.add_(teacher * (by_covariance / count)[:, :, None]), None


def standardized_error(
    student: Tensor, teacher: Tensor, form: str = "weight", floor: float = 0.1, eps: float = EPS
) -> Tensor:
    r"""Mean squared error of two sets of instances after standardization and deflation, in closed form.

    With a and b the centred channels, v their variances and c their covariance, the mean square of
    :math:`b / \sqrt{v_b + \epsilon} - \gamma a / \sqrt{v_a + \epsilon}` over positions is

    .. math:: \gamma^2 \frac{v_a}{v_a + \epsilon} + \frac{v_b}{v_b + \epsilon}
              - 2 \gamma \frac{c}{\sqrt{(v_a + \epsilon)(v_b + \epsilon)}}

    and :math:`\alpha_n`, the cosine of the flattened instances, is the sum of the last fraction over channels divided
    by the root of the sums of the first two. So three numbers a channel replace two standardised maps, their difference
    and its square, in the forward pass and in the backward one. Equal to `ima_yolo.losses.ima_loss` up to rounding.

    Args:
        student: (N, C, H, W), each channel of each instance centred already (see `ima_yolo.align.centre`), with
            gradient; N > 0.
        teacher: (N, C, H, W), without.
        form: As in `ima_yolo.align.deflation`.
        floor: As in `ima_yolo.align.deflation`.
        eps: Floor of the variances.

    Returns:
        Scalar.
    """
    flat = student.flatten(2).contiguous()  # (N, C, H, W) -> (N, C, H*W)
    target = centre(teacher).flatten(2).contiguous()
    target_variance = torch.linalg.vecdot(target, target) / target.shape[2]
    variance, covariance = _Moments.apply(flat, target)
    own, other = variance / (variance + eps), target_variance / (target_variance + eps)  # (N, C), 1 but for flat maps
    shared = covariance * torch.rsqrt((variance + eps) * (target_variance + eps))
    alpha = shared.sum(1) / (own.sum(1) * other.sum(1)).clamp(min=EPS**2).sqrt()
    gamma, weight = deflation(alpha, form, floor)
    scale = torch.ones_like(alpha) if gamma is None else gamma
    by_instance = scale.square() * own.mean(1) + other.mean(1) - 2.0 * scale * shared.mean(1)
    return (by_instance if weight is None else by_instance * weight).mean()
