"""The squared error of standardised features from their second moments, without storing a standardised feature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ima_yolo.align import EPS, centre, deflation, images_at_a_time


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


def _centred(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Take the means of (N, C, P) channels away, in numbers of a type."""
    features = features.to(dtype)
    return features - features.mean(dim=2, keepdim=True)


def _moments(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means of s s' (N, C_s, C_s), s t' (N, C_s, C_t) and t*t (N, C_t) of centred (N, C, P) channels."""
    count = student.shape[2]
    return student @ student.mT / count, student @ teacher.mT / count, torch.linalg.vecdot(teacher, teacher) / count


def _rounding(own: Tensor, weight: Tensor) -> Tensor:
    """What rounding can make of the variance of a channel that an adapter leaves flat, (N, C_t).

    There the sum over pairs of the student's channels, whose moments are (N, C_s, C_s), cancels out. What is left of it
    is noise of either sign: taken for a variance, its inverse root would make a gradient of any size.
    """
    own_variance = own.diagonal(dim1=1, dim2=2)  # (N, C_s)
    return own_variance @ weight.square().mT * torch.finfo(own.dtype).eps


def _by_student(up: Tensor, across: Tensor, weight: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """Gradient at a student, (N, C_s, P), from those at twice the variances and at the covariances, (N, C_t)."""
    by_own = (weight.mT * up[:, None]) @ weight  # (N, C_s, C_s)
    by_shared = weight.mT * across[:, None]  # (N, C_s, C_t)
    return torch.baddbmm(by_own @ student, by_shared, _centred(teacher, student.dtype)).div_(student.shape[2])


class _AdaptedError(torch.autograd.Function):
    """The value of `adapted_error`, with its gradients up to the factor that only the backward pass knows."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, weight: Tensor, teacher: Tensor, form: str, floor: float, eps: float
    ) -> Tensor:
        """Return the error of a centred (N, C_s, P) student, a (C_t, C_s) adapter and a (N, C_t, P) teacher."""
        size = images_at_a_time(student)
        parts = list(zip(student.split(size), teacher.split(size), strict=True))
        moments = [_moments(own, _centred(other, own.dtype)) for own, other in parts]
        adapted = [weight @ own for own, _, _ in moments]  # (N, C_t, C_s)
        variance = torch.cat([(part * weight).sum(2) for part in adapted])
        variance = torch.maximum(variance, torch.cat([_rounding(own, weight) for own, _, _ in moments]))
        covariance = torch.cat([(shared * weight.mT).sum(1) for _, shared, _ in moments])
        target_variance = torch.cat([other for _, _, other in moments])
        leaves = variance.requires_grad_(True), covariance.requires_grad_(True)
        with torch.enable_grad():
            error = error_of_moments(*leaves, target_variance, form, floor, eps)
        by_variance, by_covariance = torch.autograd.grad(error, leaves)  # (N, C_t)
        slopes = list(zip((2 * by_variance).split(size), by_covariance.split(size), strict=True))
        by_student = torch.cat([_by_student(*slope, weight, *part) for slope, part in zip(slopes, parts, strict=True)])
        by_weight = sum(
            (up[:, :, None] * own).sum(0) + (across[:, :, None] * shared.mT).sum(0)
            for (up, across), own, (_, shared, _) in zip(slopes, adapted, moments, strict=True)
        )
        ctx.save_for_backward(by_student, by_weight)
        return error.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by student and adapter."""
        by_student, by_weight = ctx.saved_tensors
        return by_student * gradients[0], by_weight * gradients[0], None, None, None, None


def standardized_error(
    student: Tensor, teacher: Tensor, form: str = "weight", floor: float = 0.1, eps: float = EPS
) -> Tensor:
    """Mean squared error of two sets of instances after standardization and deflation, as `error_of_moments`.

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
    variance, covariance = _Moments.apply(flat, target)
    return error_of_moments(
        variance, covariance, torch.linalg.vecdot(target, target) / target.shape[2], form, floor, eps
    )


def adapted_error(
    student: Tensor, weight: Tensor, teacher: Tensor, form: str = "weight", floor: float = 0.1, eps: float = EPS
) -> Tensor:
    r"""The same for a student that a 1x1 convolution would bring to the teacher's channels, without doing that.

    Of an adapted channel :math:`a_t = w_t \cdot s` the moments follow from those of the student's own channels s,

    .. math:: v_{a_t} = w_t^T \, \overline{s s^T} \, w_t, \qquad c_t = w_t^T \, \overline{s \, b_t}

    so no map of the teacher's width is made or given a gradient, and the adapter's own gradient comes from small
    matrices. The gradients are taken in the forward pass, up to their common factor: the backward pass keeps one map of
    the student's width, and neither the student's nor the teacher's own.

    The sum for :math:`v_{a_t}` loses digits where the student's channels cancel each other out. Below a ten millionth
    of :math:`\sum_i w_{ti}^2 v_{s_i}`, the precision of float32, it is noise, and the channel counts as flat.

    Args:
        student: (N, C_s, H, W), centred as above, before the adapter; N > 0.
        weight: Of the adapter, which has no bias, (C_t, C_s).
        teacher: (N, C_t, H, W), without gradient.
        form: As in `ima_yolo.align.deflation`.
        floor: As in `ima_yolo.align.deflation`.
        eps: Floor of the variances.

    Returns:
        Scalar.
    """
    error: Tensor = _AdaptedError.apply(student.flatten(2), weight, teacher.flatten(2), form, floor, eps)
    return error


def error_of_moments(
    variance: Tensor, covariance: Tensor, target_variance: Tensor, form: str, floor: float, eps: float
) -> Tensor:
    r"""Mean squared error of standardised and deflated instances, in closed form.

    With a and b the centred channels, v their variances and c their covariance, the mean square of
    :math:`b / \sqrt{v_b + \epsilon} - \gamma a / \sqrt{v_a + \epsilon}` over positions is

    .. math:: \gamma^2 \frac{v_a}{v_a + \epsilon} + \frac{v_b}{v_b + \epsilon}
              - 2 \gamma \frac{c}{\sqrt{(v_a + \epsilon)(v_b + \epsilon)}}

    and :math:`\alpha_n`, the cosine of the flattened instances, is the sum of the last fraction over channels divided
    by the root of the sums of the first two. So three numbers a channel replace two standardised maps, their difference
    and its square, in the forward pass and in the backward one. Equal to `ima_yolo.losses.ima_loss` up to rounding.

    Args:
        variance: v_a, (N, C), with gradient.
        covariance: c, (N, C), with gradient.
        target_variance: v_b, (N, C), without.
        form: As in `ima_yolo.align.deflation`.
        floor: As in `ima_yolo.align.deflation`.
        eps: Floor of the variances.

    Returns:
        Scalar.
    """
    own, other = variance / (variance + eps), target_variance / (target_variance + eps)  # (N, C), 1 but for flat maps
    shared = covariance * torch.rsqrt((variance + eps) * (target_variance + eps))
    alpha = shared.sum(1) / (own.sum(1) * other.sum(1)).clamp(min=EPS**2).sqrt()
    gamma, weight = deflation(alpha, form, floor)
    scale = torch.ones_like(alpha) if gamma is None else gamma
    by_instance = scale.square() * own.mean(1) + other.mean(1) - 2.0 * scale * shared.mean(1)
    return (by_instance if weight is None else by_instance * weight).mean()
