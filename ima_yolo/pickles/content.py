"""What a checkpoint holds, once it was loaded safely and before any of it is used: plain layers of a sane size."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ima_yolo.errors import IMAError
from ima_yolo.pickles.arguments import RUNS
from ima_yolo.pickles.names import FUNCTIONAL, LOSSES

CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, type)
PARTS = {"_modules": nn.Module, "_parameters": Tensor, "_buffers": Tensor}
WORDS = (str, bytes, int, float, type(None), dict, list, tuple, set, PurePath, np.generic, torch.device, torch.dtype)
MOST_PATHS = 100_000  # ways from the model to its layers; Ultralytics' largest has some 2,000
MOST_SHARED = 4.0  # how often a stored value is used: tied weights are used twice
ROOM = 2**24  # bytes that a file may share beyond that
MOST_STRIDE, MOST_SIDE = 1024, 4096  # pixels of a model's stride, and of the images that its file says it takes
MOST_GROWTH = 128  # by which all layers of a model together enlarge its maps; Ultralytics' own stay below 64
GROWING = ("scale_factor", "upscale_factor")
LIMITS = {**dict.fromkeys(GROWING, 8), **dict.fromkeys(("padding", "output_padding"), 32), "stride": 64, "size": 1024}
LIMITS |= {"_reversed_padding_repeated_twice": 32, "output_size": 1024}
"""Numbers of PyTorch's layers by which maps grow -> the most that is taken from a file."""
HEADS = {"nl": 16, "num_queries": 100_000, "reg_max": 1024, "n": 1000}
"""The same of Ultralytics' own, which counts up to them, or to powers of them."""


def check_content(content: Any) -> None:
    """Refuse tensors that claim or share more than is stored, and anything that would be called when it is used.

    Nothing of the content is called here, so everything is read off its dictionaries.

    Args:
        content: Nested mappings, lists, tuples and modules; may contain itself.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    claimed, storages, homes, holders = 0, {}, {id(content)}, set()
    for value in _parts(content):
        if isinstance(value, Tensor):
            claimed += _claimed(value)
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, nn.Module):
            claimed += _check_module(value)
            homes.add(id(vars(value)["_modules"]))
        elif isinstance(value, CODE) and not _is_of_a_layer(value):
            raise IMAError(f"refused, since it carries code or classes: {getattr(value, '__qualname__', 'a function')}")
        elif type(value).__module__ in LOSSES:  # they hold layers as attributes; a model makes its own when it trains
            homes.add(id(vars(value)))
        if any(isinstance(part, nn.Module) for part in _members(value)):
            holders.add(id(value))
        _check_attributes(value)
    if not holders <= homes:
        raise IMAError("refused, since it holds layers where they are not counted")
    if claimed > MOST_SHARED * sum(storages.values()) + ROOM:
        raise IMAError("refused, since its tensors share so much that they unpack to more than the file holds")


def _claimed(value: Tensor) -> int:
    """Bytes of a tensor."""
    size = value.numel() * value.element_size()
    if size > value.untyped_storage().nbytes():
        raise IMAError(f"refused, since a tensor claims to be {tuple(value.shape)} and stores less")
    return size


def _is_of_a_layer(function: Any) -> bool:
    """Whether this is what checkpoints are known to keep: activations, and the ways in which a layer is run."""
    if isinstance(function, types.MethodType):  # a fused layer keeps its own
        return vars(function.__self__).get(RUNS[0]) is function
    module, name = str(getattr(function, "__module__", "")), str(getattr(function, "__name__", ""))
    is_run = module.startswith("ultralytics.nn.modules") and name in RUNS
    return module.startswith(FUNCTIONAL) or (is_run and not isinstance(function, type))


def _check_attributes(value: Any) -> None:
    """Refuse an object whose attributes stand in for methods of its class: whoever uses it would call them."""
    for name, attribute in _attributes(value).items():
        if not callable(attribute) or not callable(inspect.getattr_static(type(value), name, None)):
            continue
        is_own = isinstance(attribute, types.MethodType) and attribute.__self__ is value
        if not (name == RUNS[0] and is_own and attribute.__name__ in RUNS):
            raise IMAError(f"refused, since it carries code or classes: {name} of a {type(value).__name__}")


def _attributes(value: Any) -> dict[str, Any]:
    own = getattr(value, "__dict__", {})
    return {} if isinstance(value, CODE) or not isinstance(own, dict) else own


def _members(value: Any) -> Iterator[Any]:
    """What a container holds directly."""
    if isinstance(value, dict):
        for pair in dict.items(value):
            yield from pair
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value


def _parts(content: Any) -> Iterator[Any]:
    """All that is reached, each once; nothing of it is called."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        waiting.extend(_members(value))
        if isinstance(value, Tensor):
            waiting.append(value._backward_hooks)
        if isinstance(value, types.MethodType):
            waiting.append(value.__self__)
        waiting.append(_attributes(value))


def _check_module(module: nn.Module) -> int:
    """Refuse a layer that is not built as one; return the bytes of its tensors, each name counted by itself."""
    own, claimed, kind = vars(module), 0, type(module).__name__
    for name, value in own.items():
        if "hooks" in name and not _is_nothing(value):
            raise IMAError(f"refused, since it carries code or classes: {name} of a {kind}")
    if own.get("_compiled_call_impl") is not None:
        raise IMAError(f"refused, since it carries code or classes: _compiled_call_impl of a {kind}")
    for name, wanted in PARTS.items():
        parts: Any = own.get(name)
        if not _are_parts(parts, wanted):
            raise IMAError(f"refused, since {name} of a {kind} is not built as an Ultralytics model is")
        claimed += sum(_claimed(part) for part in parts.values() if isinstance(part, Tensor))
    for name, most in (LIMITS if type(module).__module__.startswith("torch.nn.modules.") else HEADS).items():
        found = _largest(own.get(name))
        if found > most:
            raise IMAError(f"refused, since a {kind} has {name}={found:g}; at most {most}")
    return claimed


def _are_parts(parts: Any, wanted: type) -> bool:
    """Whether these are layers or tensors by name; some may be missing."""
    if type(parts) not in (dict, OrderedDict) or not all(type(name) is str for name in parts):
        return False
    return all(part is None or isinstance(part, wanted) for part in parts.values())


def _is_nothing(hooks: Any) -> bool:
    return hooks is None or hooks is False or (type(hooks) in (dict, OrderedDict, set) and not len(hooks))


def _largest(value: Any, is_within: bool = False) -> float:
    """The largest number of a value or of a row; infinite where rows lie in rows, which may go on for long.

    So it is of what is no plain value. Ultralytics reads numbers out of texts, as Python writes them.
    """
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value.strip())
        except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
            return 0.0
    if isinstance(value, (list, tuple)):
        return float("inf") if is_within else max((_largest(part, True) for part in value), default=0.0)
    if value is None or isinstance(value, str):
        return 0.0
    return float(value) if isinstance(value, (int, float)) and value == value else float("inf")


def check_paths(module: nn.Module) -> None:
    """Refuse a model that reaches its layers in more ways than any memory or time allows: PyTorch walks all of them.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    paths = _paths(module, {})
    if paths == float("inf"):
        raise IMAError("refused, since it contains itself: it is not built as an Ultralytics model is")
    if paths > MOST_PATHS:
        raise IMAError("refused, since its layers share so many others that no walk through them ends")


def _paths(module: nn.Module, known: dict[int, float]) -> float:
    if id(module) not in known:
        known[id(module)] = float("inf")  # met again before it is counted, it contains itself
        children = [child for child in module._modules.values() if child is not None]
        known[id(module)] = 1 + sum(_paths(child, known) for child in children)
    return known[id(module)]


def check_growth(model: nn.Module) -> None:
    """Refuse a model whose layers enlarge its maps until no memory holds them.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    growth = _growth(model)
    if growth > MOST_GROWTH:
        raise IMAError(f"refused, since its layers enlarge its maps {growth:g} times; at most {MOST_GROWTH}")


def _growth(module: nn.Module) -> float:
    """By how much a module's layers enlarge a map, one after the other in a sequence, else side by side."""
    _check_module(module)
    own = vars(module)
    factors = [own.get(name) for name in GROWING]
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        factors.append(own.get("stride"))
    inner = [_growth(child) for child in module.children()]
    within = math.prod(inner) if isinstance(module, nn.Sequential) else max(inner, default=1.0)
    return max(1.0, *map(_largest, factors)) * within


def check_words(checkpoint: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse layers and namespaces where a checkpoint has words: printing them may go on for ever.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    args = getattr(model, "args", None)
    said = [vars(args) if isinstance(args, types.SimpleNamespace) else args, checkpoint.get("train_args")]
    for part in _parts([*said, getattr(model, "names", None), getattr(model, "yaml", None)]):
        if not isinstance(part, WORDS):
            raise IMAError(f"refused, since there is a {type(part).__name__} among its settings, classes or layers")


def check_sizes(checkpoint: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse a size of images that a file names by itself and no memory holds: whoever sent it chose that.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    stride = getattr(model, "stride", None)
    found = float(stride.max()) if isinstance(stride, Tensor) and stride.numel() else _largest(stride)
    if not found <= MOST_STRIDE:
        raise IMAError(f"refused, since its stride is {found:g} pixels; at most {MOST_STRIDE}")
    kept = [checkpoint.get("train_args"), getattr(model, "args", None)]
    for args in kept:
        size = args.get("imgsz") if isinstance(args, Mapping) else getattr(args, "imgsz", None)
        side = _largest(size)
        if side > MOST_SIDE:
            raise IMAError(f"refused, since it says that it takes images of {side:g} pixels; at most {MOST_SIDE}")
