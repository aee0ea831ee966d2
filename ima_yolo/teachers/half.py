"""A teacher up to its neck in bfloat16: on processors that multiply it themselves, about half the time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER

from ima_yolo.errors import one_line
from ima_yolo.features import tap

DTYPE = torch.bfloat16
TOLERANCE = 0.05  # greatest error of a map, root mean square over its standard deviation; seen: 0.006 to 0.012


def is_native() -> bool:
    """Whether this processor multiplies bfloat16 itself; others imitate it, several times slower than float32."""
    known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return torch.backends.mkldnn.is_available() and any(ask is not None and ask() for ask in known)


def build_half(name: str, model: nn.Module, head: nn.Module, levels: int, channels: int, side: int) -> nn.Module | None:
    """Return a copy of a model that runs in bfloat16 up to its head, and in float32 there.

    A head codes boxes as distances from the centre of each cell; in bfloat16 their last digit can be a pixel.

    Args:
        name: The teacher's, for the log.
        model: Frozen, in evaluation, on the CPU; it stays as it is.
        head: Its last layer.
        levels: How many maps feed the head.
        channels: Of its input.
        side: Of the image of noise that both are held against each other with, in pixels.

    Returns:
        The copy, which takes bfloat16 images and whose head is given float32 maps; None, with a line of log, where it
        cannot run or shows other maps.
    """
    try:
        half = deepcopy(model)
        *layers, own_head = half.model.children()  # type: ignore[union-attr]
        for layer in layers:
            layer.to(DTYPE)
        own_head.register_forward_pre_hook(_widen)  # it stays: a teacher is neither copied nor saved
        error = _error(model, head, half, own_head, levels, torch.rand(1, channels, side, side, generator=_noise()))
        reason = "" if error <= TOLERANCE else f"its maps differ by {error:.2g} of their standard deviation"
    except Exception as fault:  # of any kind: a layer may ask for one type of numbers
        reason = one_line(fault)
    if reason:
        LOGGER.info(f"{name} cannot run in bfloat16 ({reason[:200]})")
        return None
    return half


def _noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _widen(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the head float32 in place of bfloat16, also inside the list of maps."""
    return tuple(
        [_wide(part) for part in value] if isinstance(value, (list, tuple)) else _wide(value) for value in args
    )


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == DTYPE else value


@torch.no_grad()
def _error(
    model: nn.Module, head: nn.Module, half: nn.Module, half_head: nn.Module, levels: int, images: Tensor
) -> float:
    """Greatest error of a map of `half`; infinite where one is not finite or of another shape."""
    with tap(head, levels, stop=True) as caught:
        model(images)
    with tap(half_head, levels, stop=True) as found:
        half(images.to(DTYPE))
    pairs = zip(caught.maps or [], found.maps or [], strict=True)
    errors = [float((one - other).square().mean().sqrt()) / max(float(one.std()), 1e-6) for one, other in pairs]
    return max(errors) if all(error == error for error in errors) else float("inf")
