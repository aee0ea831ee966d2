"""The squared error of standardised features from their second moments, without storing a standardised feature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ima_yolo.align import EPS, centre, deflation, images_at_a_time, of_mean_one


class _Products(torch.autograd.Function):
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


class Moments:
    r"""What the error of instances depends on, from the second moments of student a and teacher b, both centred.

    Args:
        variance: v_a, (N, C).
        covariance: c, (N, C).
        target_variance: v_b, (N, C).
        eps: Floor of the variances.

    Attributes:
        own: :math:`v_a / (v_a + \epsilon)`, (N, C), 1 but for flat channels.
        other: The same of b.
        shared: :math:`c / \sqrt{(v_a + \epsilon) (v_b + \epsilon)}`, (N, C), the correlation.
        alpha: Cosine of the flattened standardised instances, (N,).
        size: Product of their lengths, by which it was divided, (N,).
    """

    def __init__(self, variance: Tensor, covariance: Tensor, target_variance: Tensor, eps: float) -> None:
        """Derive the rest."""
        self.eps = eps
        self.inverse = 1.0 / (variance + eps)
        self.root = torch.rsqrt(variance + eps) * torch.rsqrt(target_variance + eps)  # their product might overflow
        self.own, self.other = variance * self.inverse, target_variance / (target_variance + eps)
        self.shared = covariance * self.root
        self.size = (self.own.sum(1) * self.other.sum(1)).clamp(min=EPS**2).sqrt()
        self.alpha = self.shared.sum(1) / self.size


class _AdaptedError(torch.autograd.Function):
    """The value of `adapted_error`, with its gradients up to the factor that only the backward pass knows."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, weight: Tensor, teacher: Tensor, form: str, floor: float, eps: float
    ) -> Tensor:
        """Return the error of a centred (N, C_s, P) student, a (C_t, C_s) adapter and a (N, C_t, P) teacher."""
        size = images_at_a_time(student)
        parts = zip(student.split(size), teacher.split(size), strict=True)
        found = [_adapted_errors(own, weight, other, form, floor, eps) for own, other in parts]
        errors, counts, by_student, by_weight = zip(*found, strict=True)
        total = torch.cat(counts).sum()  # above 0, as each is
        ctx.save_for_backward(torch.cat(by_student).div_(total), sum(by_weight).div_(total))
        return torch.cat(errors).sum() / total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by student and adapter."""
        by_student, by_weight = ctx.saved_tensors
        return by_student * gradients[0], by_weight * gradients[0], None, None, None, None


def _adapted_errors(
    student: Tensor, weight: Tensor, teacher: Tensor, form: str, floor: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Errors and what each counts, both (n,), of a few instances, and gradients of the errors' weighted sum.

    The shapes are those of `_AdaptedError.forward`, those of the gradients (n, C_s, P) and (C_t, C_s).
    """
    target = _centred(teacher, student.dtype)
    in_rows = target.stride(2) == 1  # else channels lie side by side, and what is adapted takes the same order
    adapted = weight @ student if in_rows else (student.mT @ weight.mT).mT  # (n, C_t, P)
    count = student.shape[2]
    pairs = (adapted, adapted), (adapted, target), (target, target)
    variance, covariance, target_variance = ((first * second).mean(2) for first, second in pairs)
    moments = Moments(variance, covariance, target_variance, eps)
    errors, counts, gamma = _errors(moments, form, floor)
    by_variance, by_covariance = _slopes(moments, gamma, form)  # (n, C_t)
    by_adapted = adapted.mul_((by_variance * counts[:, None] * (2.0 / count))[:, :, None])
    by_adapted.addcmul_(target, (by_covariance * counts[:, None] / count)[:, :, None])
    return errors * counts, counts, weight.mT @ by_adapted, (by_adapted @ student.mT).sum(0)


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
    variance, covariance = _Products.apply(flat, target)
    return error_of_moments(
        variance, covariance, torch.linalg.vecdot(target, target) / target.shape[2], form, floor, eps
    )


def adapted_error(
    student: Tensor, weight: Tensor, teacher: Tensor, form: str = "weight", floor: float = 0.1, eps: float = EPS
) -> Tensor:
    """The same for a student that a 1x1 convolution brings to the teacher's channels, an instance at a time.

    On a CPU an instance is adapted, compared and gives its gradients while its maps are in the processor's cache. The
    gradients are taken in the forward pass, up to their common factor: the backward pass keeps one map of the student's
    width, no map of the teacher's, and neither the student's nor the teacher's own.

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
    errors, counts, _ = _errors(Moments(variance, covariance, target_variance, eps), form, floor)
    return (errors * of_mean_one(counts)).mean()


def _errors(moments: Moments, form: str, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Error of each instance, what it counts, and the gamma by which the student is scaled, (N,) each."""
    gamma, counts = deflation(moments.alpha, form, floor)
    gamma = torch.ones_like(moments.alpha) if gamma is None else gamma
    errors = gamma.square() * moments.own.mean(1) + moments.other.mean(1) - 2.0 * gamma * moments.shared.mean(1)
    return errors, torch.ones_like(errors) if counts is None else counts, gamma


def _slopes(moments: Moments, gamma: Tensor, form: str) -> tuple[Tensor, Tensor]:
    """Gradients of each instance's error by v_a and c, (N, C) each: what autograd finds, in a third of its time."""
    channels = moments.own.shape[1]
    by_own, by_shared = (gamma.square() / channels)[:, None], (-2.0 * gamma / channels)[:, None]
    if form == "cosine":  # the one whose gamma has a gradient, where alpha is above 0
        by_gamma = 2.0 * (gamma * moments.own.mean(1) - moments.shared.mean(1)) * (moments.alpha > 0)
        is_free = moments.size > EPS  # elsewhere the size is held, and alpha does not change by it
        by_own = by_own - (by_gamma * moments.alpha * is_free / (2.0 * moments.own.sum(1).clamp(min=1e-30)))[:, None]
        by_shared = by_shared + (by_gamma / moments.size)[:, None]
    left = moments.eps * moments.inverse.square()  # the derivative of v_a / (v_a + eps)
    return by_own * left - by_shared * moments.shared * moments.inverse / 2.0, by_shared * moments.root
