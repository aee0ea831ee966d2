"""Descriptions of models: nothing but layers, and no more of them than a memory holds."""

from __future__ import annotations

import ast
import contextlib
import functools
import threading
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torchvision import ops
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError
from ima_yolo.pickles.content import check_growth
from ima_yolo.plain_yaml import check_size
from ima_yolo.trust import MOST_BANDS, MOST_CHANNELS, shorten

LAYERS = ("ultralytics.nn.modules.", "torch.nn.modules.", "torchvision.ops.")  # where classes of layers are defined
MOST_LAYERS, MOST_FACTOR = 2000, 10  # Ultralytics' own stay below 100 and 2
MOST_WIDTH = 8192  # of a layer's numbers: channels, repeats inside it
MOST_PARAMETERS = 500_000_000  # 2 GB in single precision; Ultralytics' own stay below 160 million
MOST_ACTIVATION = 256  # of an activation's numbers
MOST_BUILT = 20_000  # layers, those inside others too; Ultralytics' own stay below 2,000
_ALONE = threading.Lock()  # PyTorch's classes and Ultralytics' log are one for all threads
NUMBERS = ("nc", "reg_max", "kpt_shape", "ch", "channels", "depth_multiple", "width_multiple")


def check_architecture(description: Any) -> None:
    """Refuse a description that names anything but layers: Ultralytics calls what is named, and evaluates activations.

    Args:
        description: What a model's YAML file says, or what a checkpoint carries of it.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    if not isinstance(description, Mapping):
        raise IMAError("carries no description of its layers")
    check_size(description)
    activation = description.get("activation")
    if activation and not _is_activation(str(activation)):
        raise IMAError(f"refused, since its activation is '{shorten(activation)}'; expected for example nn.SiLU()")
    _check_numbers(description)
    layers = 0.0
    for part in ("backbone", "head"):
        for layer in description.get(part) or ():
            if not isinstance(layer, (list, tuple)) or len(layer) != 4 or not _is_layer(layer[2]):
                raise IMAError(f"refused, since '{shorten(layer)}' in its {part} is no layer")
            layers += max(1.0, _largest(layer[1]))
            if not _largest(layer[3]) <= MOST_WIDTH:
                raise IMAError(f"refused, since '{shorten(layer)}' in its {part} has a number above {MOST_WIDTH}")
    factor = _largest([_factors(description), description.get("depth_multiple"), description.get("width_multiple")])
    if not (layers <= MOST_LAYERS and factor <= MOST_FACTOR):
        raise IMAError(
            f"refused, since it repeats layers {layers:.3g} times, or scales them by more than {MOST_FACTOR}"
        )
    _check_parameters(description)


def _check_numbers(description: Mapping[str, Any]) -> None:
    for name in NUMBERS:
        most = MOST_BANDS if name in ("ch", "channels") else MOST_CHANNELS
        if not _largest(description.get(name)) <= most:
            raise IMAError(f"refused, since its {name} is {shorten(description[name])}; at most {most}")


def _factors(description: Mapping[str, Any]) -> list[Any]:
    scales = description.get("scales")
    parts = scales.values() if isinstance(scales, Mapping) else ()
    return [list(scale)[:2] for scale in parts if isinstance(scale, (list, tuple))]


def _check_parameters(description: Mapping[str, Any]) -> None:
    """Count them without memory for them, as they are made: a later layer may be none that can be built.

    What cannot be built here is refused by whoever builds it.
    """
    described = deepcopy(dict(description))
    for part in ("backbone", "head"):  # a layer of torchvision would fetch the weights that it names
        rows = [list(row) for row in described.get(part) or ()]
        described[part] = [[*row[:2], "nn.Identity", []] if row[2] == "TorchVision" else row for row in rows]
    if not described["backbone"] and not described["head"]:
        return
    try:
        with _ALONE, _unbuilt(), _counted(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            channels = description.get("channels") or description.get("ch") or 3
            layers, _ = tasks.parse_model(described, ch=channels, verbose=False)
    except IMAError:
        raise
    except Exception:
        return
    check_growth(layers)
    _check_count(sum(value.numel() for value in layers.parameters()))


def _check_count(count: int, most: int = MOST_PARAMETERS) -> None:
    if count > most:
        raise IMAError(f"refused, since it describes {count:.3g} parameters; at most {MOST_PARAMETERS:.3g}")


class _Count:
    """What was built in this thread so far."""

    def __init__(self) -> None:
        self.thread, self.layers, self.parameters = threading.get_ident(), 0, 0

    def add(self, name: str, args: tuple[Any, ...]) -> None:
        """Take note of the call of a layer's method.

        Raises:
            IMAError: If there are more layers or parameters than any model has.
        """
        if threading.get_ident() != self.thread:
            return
        if name == "register_parameter":
            self.parameters += sum(part.numel() for part in args if isinstance(part, nn.Parameter))
            _check_count(self.parameters, 2 * MOST_PARAMETERS)  # some are made to be replaced by others
        else:
            self.layers += 1
            if self.layers > MOST_BUILT:
                raise IMAError(f"refused, since it describes more than {MOST_BUILT} layers")


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    """Stop where more is built, or copied, than any model has: some layers take the number of those inside them."""
    count = _Count()

    def counting(method: Any, name: str) -> Any:
        @functools.wraps(method)
        def run(*args: Any, **options: Any) -> Any:
            count.add(name, (*args, *options.values()))
            return method(*args, **options)

        return run

    plain = {name: getattr(nn.Module, name) for name in ("__init__", "__setstate__", "register_parameter")}
    for name, method in plain.items():
        setattr(nn.Module, name, counting(method, name))
    try:
        yield
    finally:
        for name, method in plain.items():
            setattr(nn.Module, name, method)


@contextlib.contextmanager
def _unbuilt() -> Iterator[None]:
    """Undo what building leaves behind: the activation of all later layers, and words about the scale."""
    activation, level = Conv.default_act, LOGGER.level
    LOGGER.setLevel("ERROR")
    try:
        yield
    finally:
        Conv.default_act = activation
        LOGGER.setLevel(level)


def _largest(content: Any) -> float:
    """The largest number in nested lists and mappings of plain values; NaN counts as infinite.

    A number may be written as a text, which Ultralytics evaluates.
    """
    if isinstance(content, Mapping):
        return max(map(_largest, content.values()), default=0.0)
    if isinstance(content, (list, tuple)):
        return max(map(_largest, content), default=0.0)
    if isinstance(content, str):
        try:
            return _largest(ast.literal_eval(content))
        except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
            return 0.0
    if isinstance(content, bool) or not isinstance(content, (int, float)):
        return 0.0
    return float("inf") if content != content else abs(float(max(-1e300, min(content, 1e300))))


def _is_layer(name: Any) -> bool:
    place, _, last = str(name).rpartition(".")
    if place not in ("", "nn", "torchvision.ops"):
        return False
    home: Any = {"": tasks, "nn": nn, "torchvision.ops": ops}[place]
    found = getattr(home, last, None)
    # A whole model of Ultralytics is a module too, and would build the description that it is given, unseen.
    return isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(LAYERS)


def _is_activation(text: str) -> bool:
    """Whether a text is the call of a class of torch.nn with plain values."""
    try:
        call: Any = ast.parse(text.strip(), mode="eval").body
        place, _, name = ast.unparse(call.func).rpartition(".")
        values = [ast.literal_eval(value) for value in (*call.args, *(keyword.value for keyword in call.keywords))]
        if _largest(values) > MOST_ACTIVATION:
            return False
    except (AttributeError, RecursionError, SyntaxError, TypeError, ValueError):
        return False
    return place in ("nn", "torch.nn") and _is_layer(f"nn.{name}")
