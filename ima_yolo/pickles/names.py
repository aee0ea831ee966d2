"""What a file may name, and what stands in for it: layers and losses by their classes, and a few functions."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ima_yolo.pickles.arguments import (
    ARRAY,
    PARAMETER,
    TENSOR,
    are_keys,
    are_texts,
    is_device,
    is_dtype,
    is_empty_array,
    is_latin,
    is_legacy_tensor,
    is_nothing,
    is_of_type,
    is_parameter,
    is_run,
    is_scalar,
    is_shape_of,
    is_tensor,
    is_typed_tensor,
)
from ima_yolo.pickles.stand_ins import (
    Array,
    DType,
    Encode,
    Function,
    Kind,
    Object,
    Ordered,
    Refused,
    StorageType,
    Tensor,
    Value,
)

LAYERS = re.compile(r"torch\.nn\.modules(\.\w+)?|ultralytics\.nn\.(modules(\.\w+)?|tasks)")
LOSSES = ("ultralytics.utils.loss", "ultralytics.utils.tal")
# Ways to be filled that set attributes and do nothing else, read in torch 2.6 to 2.14 and Ultralytics 8.4.190. That of
# recurrent layers counts up to what the file says, and that of a model in distillation calls what it finds in itself.
FILLED = {"Module", "MultiheadAttention", "Softmin", "Softmax", "LogSoftmax", "_ConvNd", "AvgPool3d", "Upsample"}
FILLED |= {"TransformerEncoderLayer", "TransformerDecoderLayer", "AAttn"}
NEEDED = {"AAttn": ("head_dim", "num_heads")}  # which it multiplies
FORMER = {
    ("ultralytics.nn.tasks", "YOLOv10DetectionModel"),
    ("ultralytics.nn.modules.block", "Silence"),
    ("ultralytics.utils.loss", "v10DetectLoss"),
    *(("torchvision.transforms.transforms", name) for name in ("Compose", "Normalize", "Resize", "CenterCrop")),
    ("torchvision.transforms.transforms", "ToTensor"),
}
"""Classes that Ultralytics reads under names that are gone, and those of its classifiers' preprocessing."""
FUNCTIONAL = ("torch.nn.functional", "torch._C._nn")  # where layers of PyTorch find their activations
NUMPY = re.compile(r"numpy\._?core\.(multiarray|numeric)")
WIDTHS = {"Untyped": 1, "Byte": 1, "Char": 1, "Bool": 1, "Half": 2, "BFloat16": 2, "Short": 2, "Int": 4, "Float": 4}
WIDTHS |= {"Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16}
"""Types of numbers beside the pickle -> bytes of one."""
VALUES = (torch.dtype, torch.layout, torch.memory_format)

REBUILD: dict[str, Callable[..., bool]] = {
    "_rebuild_tensor": is_legacy_tensor,
    "_rebuild_tensor_v2": is_tensor,
    "_rebuild_tensor_v3": is_typed_tensor,
    "_rebuild_parameter": is_parameter,
    "_rebuild_parameter_with_state": is_parameter,
}
KNOWN: dict[tuple[str, str], Any] = {
    **{("torch._utils", name): Function(name, takes, Tensor) for name, takes in REBUILD.items()},
    ("torch._tensor", "_rebuild_from_type_v2"): Function("_rebuild_from_type_v2", is_of_type, Tensor),
    ("torch", "Tensor"): TENSOR,
    ("torch.nn.parameter", "Parameter"): PARAMETER,
    ("torch", "Size"): Function("Size", is_shape_of),
    ("torch", "device"): Function("device", is_device),
    ("collections", "OrderedDict"): Function("OrderedDict", is_nothing, Ordered),
    ("builtins", "set"): Function("set", are_keys),
    ("builtins", "bytes"): Function("bytes", is_nothing, bytes),
    ("builtins", "bytearray"): Function("bytearray", is_latin),
    ("builtins", "getattr"): Function("getattr", is_run),
    ("_codecs", "encode"): Encode("encode", is_latin),
    **{
        (home, name): Function(name, are_texts(1000))
        for home in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    },
    **{
        (home, "IterableSimpleNamespace"): Function("IterableSimpleNamespace", is_nothing, Object)
        for home in ("ultralytics.utils", "ultralytics.yolo.utils")
    },
    ("torchvision.transforms.functional", "InterpolationMode"): Function("InterpolationMode", are_texts(1)),
}
"""What a checkpoint may name beside layers, losses and values -> its stand-in."""

DTYPE = DType("dtype", is_dtype)
SCALAR = Function("scalar", is_scalar)
RECONSTRUCT = Function("_reconstruct", is_empty_array, Array)


def of_checkpoint(module: str, name: str) -> Any:
    """Return what stands in for a name in a checkpoint.

    Raises:
        Refused: If none has it.
    """
    if (module, name) in KNOWN:
        return KNOWN[module, name]
    if (module, name) == ("numpy", "dtype"):
        return DTYPE
    if NUMPY.fullmatch(module) and name == "scalar":
        return SCALAR
    if module in ("torch", "torch.storage") and name.removesuffix("Storage") in WIDTHS:
        return StorageType(WIDTHS[name.removesuffix("Storage")])
    is_value = module == "torch" and isinstance(getattr(torch, name, None), VALUES)
    if is_value or module in FUNCTIONAL:  # activations are kept, and not called
        return Value()
    return _layer(module, name)


def of_cache(module: str, name: str) -> Any:
    """Return what stands in for a name in a cache of labels: arrays and numbers of NumPy, and nothing else.

    Raises:
        Refused: If none has it.
    """
    if NUMPY.fullmatch(module) and name in ("scalar", "_reconstruct"):
        return SCALAR if name == "scalar" else RECONSTRUCT
    if module == "numpy" and name in ("dtype", "ndarray"):
        return DTYPE if name == "dtype" else ARRAY
    if (module, name) == ("_codecs", "encode"):
        return KNOWN[module, name]
    raise Refused(f"{module}.{name}")


@functools.cache
def _layer(module: str, name: str) -> Kind:
    """A class of layers or losses, where making and filling it calls nothing of the file's.

    Its module is imported as PyTorch's loading does after this; it is one of PyTorch's or Ultralytics' own.
    """
    if (module, name) not in FORMER:
        kind = None
        if LAYERS.fullmatch(module) or module in LOSSES:
            try:
                kind = getattr(importlib.import_module(module), name, None)
            except ImportError:
                kind = None
        if not isinstance(kind, type) or not _is_filled_plainly(kind, module):
            raise Refused(f"{module}.{name}")
    return Kind(name, (Object,), {"needed": NEEDED.get(name, ())})


def _is_filled_plainly(kind: type, module: str) -> bool:
    filling = filler(kind)
    if module in LOSSES:
        return kind.__module__ == module and filling is None
    return issubclass(kind, nn.Module) and filling is not None and filling.__name__ in FILLED


def filler(kind: type) -> type | None:
    """Return which class says how objects of a class are filled: not by the function, which `torch.compile` wraps."""
    return next((base for base in kind.__mro__ if "__setstate__" in vars(base)), None)
