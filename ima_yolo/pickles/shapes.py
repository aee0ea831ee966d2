"""Layers whose tensors are as large as they say: others are made from them when a model is fused, of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from ultralytics.nn.modules import RepConv

from ima_yolo.errors import IMAError

OF_NORM = ("weight", "bias", "running_mean", "running_var")
CONVOLUTIONS = ("conv", "conv_transpose")  # names under which Ultralytics' layers keep theirs beside a batch norm


def check_shapes(model: nn.Module) -> None:
    """Refuse layers that say other sizes than their tensors have, or that do not fit each other.

    Args:
        model: Whose layers were looked through (`ima_yolo.pickles.content`).

    Raises:
        IMAError: With the reason, without the file's name.
    """
    for module in model.modules():
        parts = module._modules
        fits = _fits(module)
        for name in CONVOLUTIONS:
            conv, norm = parts.get(name), parts.get("bn")
            if isinstance(conv, _ConvNd) and isinstance(norm, _NormBase):
                fits = fits and conv.out_channels == norm.num_features
        if isinstance(module, RepConv):
            fits = fits and _is_sound(module, parts)
        if not fits:
            raise IMAError(f"refused, since a {type(module).__name__} says other sizes than it has")


def _fits(module: nn.Module) -> bool:
    own: Any = module
    if isinstance(module, _ConvNd):
        numbers = (own.in_channels, own.out_channels, own.groups, *own.kernel_size)
        if not all(type(number) is int and number > 0 for number in numbers):
            return False
        first, second = own.out_channels, own.in_channels // own.groups
        if isinstance(module, _ConvTransposeNd):
            first, second = own.in_channels, own.out_channels // own.groups
        return _has(module, "weight", (first, second, *own.kernel_size)) and _has(module, "bias", (own.out_channels,))
    if isinstance(module, _NormBase):
        return all(_has(module, name, (own.num_features,)) for name in OF_NORM)
    return True


def _has(module: nn.Module, name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor has this shape, or is not there."""
    value = module._parameters.get(name, module._buffers.get(name))
    return not isinstance(value, Tensor) or tuple(value.shape) == shape


def _is_sound(module: RepConv, parts: Mapping[str, nn.Module | None]) -> bool:
    """Whether the branch that fusing makes anew is of the size of those that are there."""
    conv = getattr(parts.get("conv1"), "conv", parts.get("conv"))
    return isinstance(conv, nn.Conv2d) and (module.c1, module.g) == (conv.in_channels, conv.groups)
