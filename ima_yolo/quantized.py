"""What a checkpoint of `quantize=8` says of its quantization, which NVIDIA ModelOpt builds anew when it is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ima_yolo.errors import IMAError, one_line
from ima_yolo.trust import MOST_CHANNELS, shorten

MODES = ("quantize", "max_calibrate")
"""What Ultralytics does to a model for `quantize=8`. Other modes of ModelOpt import what a checkpoint names to them."""


def check_quantization(checkpoint: Mapping[str, Any]) -> None:
    """Refuse a quantization that is not as Ultralytics writes it, before any of it is built.

    Args:
        checkpoint: A checkpoint's dictionary; one without quantization passes.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    state = checkpoint.get("modelopt")
    if not state:
        return
    try:
        steps = [(str(mode), step["metadata"]) for mode, step in state["modelopt"]["modelopt_state_dict"]]
        if not all(_is_plain(step["config"]) for _, step in state["modelopt"]["modelopt_state_dict"]):
            raise TypeError("config")
        sizes = [size for _, metadata in steps for size in _sizes(metadata["quantizer_state"])]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise IMAError("refused, since what it says of its quantization is not what quantize=8 writes") from None
    for mode, _ in steps:
        if mode not in MODES:
            raise IMAError(
                f"refused, since its quantization is of a kind that quantize=8 does not write: {shorten(mode)}"
            )
    if not max(sizes, default=0) <= MOST_CHANNELS:
        raise IMAError(f"refused, since its quantization has a range of more than {MOST_CHANNELS} values")


def _is_plain(value: Any) -> bool:
    """Whether this is made of mappings, lists, texts and numbers: ModelOpt would call a class that stands there."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


def _sizes(quantizers: Mapping[str, Any]) -> Iterator[float]:
    """Numbers of values of the parameters and buffers that the quantizers of a model are to be given."""
    for quantizer in quantizers.values():
        for kind in quantizer["_pytorch_state_metadata"].values():
            for told in kind.values():
                yield math.prod(float(side) for side in told["shape"])


def need_modelopt(why: str) -> None:
    """Look for NVIDIA ModelOpt: Ultralytics would install it by itself.

    It is imported, not only found, since it draws random numbers when it is first imported.

    Args:
        why: Begins the message: what needs it.

    Raises:
        IMAError: If it is not there.
    """
    try:
        import_module("modelopt.torch.quantization")
    except ImportError as error:
        missing = f"{why} needs NVIDIA ModelOpt, which cannot be imported ({one_line(error)})"
        raise IMAError(f"{missing}; pip install '.[int8]' where IMA-YOLO was cloned") from error
