"""Alignment of student and teacher: adapter, generator, instance standardization, adaptive scale deflation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

LEAST = 1e-6  # weight of an instance: by this much an opposed one's cosine is rounding, and may lie below -1
EPS = 1e-6  # added to a variance; below it a channel counts as constant and is left near zero instead of amplified


def adapter(student_channels: int, teacher_channels: int, always: bool = True, bias: bool = True) -> nn.Module:
    """Build f_align: a trained 1x1 convolution from the student's channels to the teacher's.

    The paper puts it "where channels differ". Channels of two networks trained apart carry no common order even when
    their number agrees, so the default is to learn the match in any case.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        always: False for the paper's words: identity where the channels agree.
        bias: False where what follows takes the mean away, and a bias with it.

    Returns:
        A module (B, C_s, H, W) -> (B, C_t, H, W).
    """
    if student_channels == teacher_channels and not always:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1, bias=bias)


def generator(channels: int) -> nn.Sequential:
    """Build the block that restores what a spatial mask hid: 3x3, ReLU, 3x3 (MGD, arXiv 2205.01529, eq. 4).

    Args:
        channels: C_t; input and output are (B, C_t, H, W).
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
    )


class LightGenerator(nn.Module):
    """A generator that costs a hundredth: x + depthwise 3x3, ReLU, depthwise 3x3, at the student's own width.

    It stands before the adapter, whose 1x1 convolution mixes the channels; a hidden position is restored from the same
    5 x 5 neighbourhood as by `generator`. What is visible passes unchanged: without that path, the small features of an
    untrained student drown in the layers' biases, and standardization finds nothing to scale.

    Args:
        channels: C_s; input and output are (B, C_s, H, W).
    """

    def __init__(self, channels: int) -> None:
        """Build the two depthwise layers."""
        super().__init__()
        self.restore = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False),
        )

    def forward(self, masked: Tensor) -> Tensor:
        """Restore a masked map."""
        return masked + self.restore(masked)


def standardize(features: Tensor, eps: float = EPS) -> Tensor:
    r"""Instance standardization: zero mean and unit variance of each channel over the positions of each instance.

    .. math:: \hat F_n = (F_n - \mu_n) / \sqrt{\sigma_n^2 + \epsilon}

    with :math:`\mu_n, \sigma_n \in R^C` (Guo et al. 2025, cascade alignment). The paper divides by
    :math:`\sigma + \epsilon`, whose gradient is infinite at zero variance; with epsilon under the root it is finite.

    Args:
        features: (N, C, H, W), N instances.
        eps: Floor of the variance.

    Returns:
        (N, C, H, W) in float32, or float64 where the input is.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    centred = centre(features)
    variance = centred.square().mean(dim=(2, 3), keepdim=True)  # many times faster than torch.var on a CPU
    return centred * torch.rsqrt(variance + eps)


def centre(features: Tensor) -> Tensor:
    """Take the mean of each channel of each instance away, (N, C, H, W) -> (N, C, H, W)."""
    return features - features.mean(dim=(2, 3), keepdim=True)


def images_at_a_time(batch: Tensor) -> int:
    """Images of a (B, ...) batch to work on together: on a CPU one, whose values fit its cache, elsewhere all."""
    return 1 if batch.device.type == "cpu" else len(batch)


def importance(student: Tensor, teacher: Tensor) -> Tensor:
    """Cosine of the flattened features of each instance, alpha_n before its mapping to [0, 1].

    Args:
        student: (N, C, H, W).
        teacher: (N, C, H, W).

    Returns:
        (N,) in [-1, 1]; 0 where either side is all zero.
    """
    return torch.nn.functional.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1, eps=1e-8)


def deflation(alpha: Tensor, form: str, floor: float = 0.1) -> tuple[Tensor | None, Tensor | None]:
    r"""Adaptive scale deflation, in the forms that the paper's words admit.

    The paper scales the standardised student by a factor gamma_n "in accordance with" alpha_n, the cosine between the
    two, and gives no formula. With both sides standardised, an instance's mean squared error is
    :math:`\gamma^2 - 2 \gamma \rho + 1`, rho the mean correlation. The literal gamma = alpha = rho gives
    :math:`1 - \rho^2`, which has no gradient at rho = 0 and pushes apart below it. So the forms are:

    - ``weight``: the student is not scaled; gamma_n = (1 + alpha_n) / 2 weighs the instance in the loss, a weighted
      mean. The gradient always points to the teacher; instances far from it count less, which is what the
      module is for. A single instance is its own mean, so there it changes nothing.
    - ``shifted``: scaled by gamma_n = (1 + alpha_n) / 2, held constant in the gradient.
    - ``floor``: scaled by gamma_n = max(alpha_n, floor), held constant in the gradient.
    - ``cosine``: the literal one, gamma_n = max(alpha_n, 0), with gradient through alpha_n.
    - ``none``: no deflation.

    Args:
        alpha: (N,) cosines of the standardised instances, see `importance`.
        form: One of the above.
        floor: Smallest gamma of the form ``floor``, in (0, 1].

    Returns:
        gamma, the (N,) scales of the student, and the (N,) weights of the instances, of any mean and without gradient;
        None for what the form leaves alone. Where (1 + alpha_n) / 2 is below `LEAST`, it is `LEAST`: instances that
        are all exactly opposed weigh alike.
    """
    if form == "none":
        return None, None
    if form in ("weight", "shifted"):
        mapped = ((1.0 + alpha.detach()) / 2.0).clamp(min=LEAST)
        return (None, mapped) if form == "weight" else (mapped, None)
    if form == "floor":
        return alpha.detach().clamp(min=floor), None
    return alpha.clamp(min=0.0), None


def deflate(student: Tensor, teacher: Tensor, form: str, floor: float = 0.1) -> tuple[Tensor, Tensor | None]:
    """Apply `deflation` to standardised instances.

    Args:
        student: (N, C, H, W), standardised.
        teacher: (N, C, H, W), standardised.
        form: As in `deflation`.
        floor: As in `deflation`.

    Returns:
        The student, scaled or as it came, and the (N,) weights of the instances, of mean 1, or None.
    """
    if form == "none":
        return student, None
    gamma, weight = deflation(importance(student, teacher), form, floor)
    weight = None if weight is None else of_mean_one(weight)
    return student if gamma is None else student * gamma[:, None, None, None], weight


def of_mean_one(weight: Tensor) -> Tensor:
    """Divide the weights of instances, (N,), each above 0, by their mean."""
    return weight / weight.mean()


def box_instances(features: Tensor, boxes: Tensor, stride: int, size: int) -> Tensor:
    """Cut each box out of a map as one instance (RoIAlign, arXiv 1703.06870).

    Args:
        features: (B, C, H, W).
        boxes: (R, 5) image index, x1, y1, x2, y2 in pixels.
        stride: Pixels per cell.
        size: Cells of a side of the cut, S.

    Returns:
        (R, C, S, S) float32.
    """
    return roi_align(
        features.float(), boxes, output_size=size, spatial_scale=1.0 / stride, sampling_ratio=2, aligned=True
    )


def boxes_of_level(boxes: Tensor, stride: int, finest: bool) -> Tensor:
    """Keep the boxes that are large enough to have a spatial structure at this stride.

    A box under two cells wide or high is nearly constant after RoIAlign, and standardising it would turn rounding
    noise into a target. The finest level keeps every box, so that no object is lost.

    Args:
        boxes: (R, 5) in pixels.
        stride: Pixels per cell.
        finest: Whether this is the finest level in use.

    Returns:
        (R', 5).
    """
    if finest:
        return boxes
    sides = torch.minimum(boxes[:, 3] - boxes[:, 1], boxes[:, 4] - boxes[:, 2])
    return boxes[sides >= 2 * stride]
