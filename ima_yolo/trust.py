"""What is let in: nothing that runs code or grows beyond its file, unless the user said `ima_trust=True`."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision import ops
from ultralytics.nn import tasks

from ima_yolo.errors import IMAError
from ima_yolo.plain_yaml import check_size

LAYERS = ("ultralytics.nn.modules.", "torch.nn.modules.", "torchvision.ops.")  # where classes of layers are defined
MOST_LAYERS, MOST_CHANNELS, MOST_FACTOR = 2000, 65536, 10  # Ultralytics' own stay below 100, 2,048 and 2
_TRUSTED: ContextVar[bool] = ContextVar("ima_trust", default=False)


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Load checkpoints meanwhile as PyTorch does, with the code that they carry, if the user asked for that."""
    token = _TRUSTED.set(trust)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def trusts() -> bool:
    """Whether checkpoints may run their code now."""
    return _TRUSTED.get()


def check_archive(path: Path) -> None:
    """Refuse a checkpoint whose parts are compressed or overlap: `torch.save` writes none, and they hide any size.

    Args:
        path: A file; what is no zip archive is left to others.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise IMAError("the file is empty, truncated or not a checkpoint") from error
    packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if packed or sum(part.file_size for part in parts) > path.stat().st_size:
        raise IMAError("refused, since its parts unpack to more than the file holds")


def check_tensors(content: Any) -> None:
    """Refuse tensors that claim more values than are stored, which a copy would write out.

    Args:
        content: Nested mappings, lists, tuples and modules; may contain itself.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise IMAError(f"refused, since a tensor claims to be {tuple(value.shape)} and stores less")
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)
        elif isinstance(value, nn.Module):
            waiting.append(vars(value))


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
    layers = 0.0
    for part in ("backbone", "head"):
        for layer in description.get(part) or ():
            if not isinstance(layer, (list, tuple)) or len(layer) != 4 or not _is_layer(layer[2]):
                raise IMAError(f"refused, since '{shorten(layer)}' in its {part} is no layer")
            layers += layer[1] if isinstance(layer[1], (int, float)) else 1
            if not _largest(layer[3]) <= MOST_CHANNELS:
                raise IMAError(f"refused, since '{shorten(layer)}' in its {part} has a number above {MOST_CHANNELS}")
    scales = description.get("scales")
    factors = [scale[:2] for scale in scales.values() if isinstance(scale, list)] if isinstance(scales, Mapping) else []
    factor = _largest([factors, description.get("depth_multiple"), description.get("width_multiple")])
    if not (layers <= MOST_LAYERS and factor <= MOST_FACTOR):
        raise IMAError(
            f"refused, since it repeats layers {layers:.3g} times, or scales them by more than {MOST_FACTOR}"
        )


def _largest(content: Any) -> float:
    """The largest number in nested lists and mappings of plain values; NaN counts as infinite."""
    if isinstance(content, Mapping):
        return max(map(_largest, content.values()), default=0.0)
    if isinstance(content, (list, tuple)):
        return max(map(_largest, content), default=0.0)
    if isinstance(content, bool) or not isinstance(content, (int, float)):
        return 0.0
    return float("inf") if content != content else abs(float(max(-1e300, min(content, 1e300))))


def shorten(value: Any) -> str:
    """The beginning of a text that somebody else may have made long."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


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
        for value in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(value)
    except (AttributeError, RecursionError, SyntaxError, TypeError, ValueError):
        return False
    return place in ("nn", "torch.nn") and _is_layer(f"nn.{name}")
