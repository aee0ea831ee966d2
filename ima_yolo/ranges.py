"""Ranges of Ultralytics' own keys that Ultralytics itself finds out late, after a folder was made, or never."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import SimpleNamespace
from typing import Any

from ima_yolo.errors import IMAError

OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop")
CACHES = (True, False, None, "ram", "disk", "True", "False")
COPY_PASTE = ("flip", "mixup")
LARGEST = 32768  # pixels of a side: a picture of 3 GB
LARGEST_SEED = 4_294_900_000  # NumPy takes 2**32 - 1, and each process of a training adds its number to the seed
AT_LEAST_ZERO = ("workers", "close_mosaic", "warmup_epochs", "box", "cls", "dfl", "dis")


def check_ranges(checked: SimpleNamespace) -> None:
    """Refuse values that make a training fail after it has begun, or that quietly mean something else.

    Args:
        checked: Ultralytics' arguments, whose types are right already.

    Raises:
        IMAError: For the first value out of its range.
    """
    check_numbers(vars(checked))
    for key in AT_LEAST_ZERO:
        _expect(getattr(checked, key, 0) >= 0, checked, key, "0 or more")
    _expect(str(checked.optimizer).lower() in map(str.lower, OPTIMIZERS), checked, "optimizer", _listed(OPTIMIZERS))
    betas = str(checked.optimizer).lower() in ("adam", "adamw", "adamax", "radam")  # whose first one it is
    _expect(checked.momentum < 1 or not betas, checked, "momentum", f"less than 1 with optimizer={checked.optimizer}")
    _expect(checked.time is None or checked.time > 0, checked, "time", "hours, above 0")
    _expect(_is_batch(checked.batch), checked, "batch", "a whole number from 1 up, a share of memory in (0, 1), or -1")
    _expect(are_sizes(checked.imgsz), checked, "imgsz", f"whole pixels from 32 to {LARGEST}")
    _expect(checked.cache in CACHES, checked, "cache", "True, False, ram or disk")
    _expect(checked.copy_paste_mode in COPY_PASTE, checked, "copy_paste_mode", _listed(COPY_PASTE))
    _expect(_are_counts(checked.freeze, or_names=True), checked, "freeze", "a number of layers or a list of them")
    _expect(is_seed(checked.seed), checked, "seed", f"a whole number from 0 to {LARGEST_SEED}")
    check_indices(checked.classes)


def check_numbers(options: Mapping[str, Any]) -> None:
    """Refuse infinities and what is no number, which few places of a training are ready for.

    Raises:
        IMAError: Naming the key.
    """
    for key, value in options.items():
        if isinstance(value, float) and not isfinite(value):
            raise IMAError(f"{key}={value}: expected a finite number")


def are_sizes(sizes: Any, least: int = 32) -> bool:
    """Whether a side in pixels, or each of a list of them, is a whole number from `least` to `LARGEST`."""
    given = sizes if isinstance(sizes, (list, tuple)) else [sizes]
    return bool(given) and all(type(size) is int and least <= size <= LARGEST for size in given)


def is_seed(seed: Any) -> bool:
    """Whether a training can begin with this seed."""
    return type(seed) is int and 0 <= seed <= LARGEST_SEED


def check_layers(freeze: Any, layers: int) -> None:
    """Refuse to freeze layers that the student does not have.

    Args:
        freeze: Number of layers, or list of indices and of names such as "23.cv2", or None.
        layers: How many the student has.

    Raises:
        IMAError: If a layer is out of range, or none would be left to train.
    """
    named = list(range(freeze)) if isinstance(freeze, int) else list(freeze or [])
    numbers = {index for index in named if isinstance(index, int)}
    if any(index >= layers for index in numbers) or len(numbers) >= layers:
        raise IMAError(f"freeze={freeze}: the student has layers 0 to {layers - 1}, and one at least must train")


def check_indices(classes: Any) -> None:
    """Refuse what names no class: nothing would be found of it, and Ultralytics is content.

    Args:
        classes: Index or list of indices, or None for all.

    Raises:
        IMAError: If it is anything else, or an empty list.
    """
    if not _are_counts(classes) or (isinstance(classes, (list, tuple)) and not classes):
        raise IMAError(f"classes={classes}: expected a list of class indices")


def check_classes(classes: Any, count: int, owner: str = "data") -> None:
    """Refuse classes that the data or the model does not have.

    Args:
        classes: As of `check_indices`, which it passed.
        count: How many classes there are.
        owner: Of them, for the message.

    Raises:
        IMAError: If an index is out of range.
    """
    named = [classes] if isinstance(classes, int) else list(classes or [])
    if any(index >= count for index in named):
        raise IMAError(f"classes={classes}: the {owner} has classes 0 to {count - 1}")


def _expect(holds: bool, checked: SimpleNamespace, key: str, expected: str) -> None:
    if not holds:
        raise IMAError(f"{key}={getattr(checked, key)}: expected {expected}")


def _listed(words: tuple[str, ...]) -> str:
    return "one of " + ", ".join(words)


def _is_batch(batch: float) -> bool:
    return not isinstance(batch, bool) and (batch == -1 or 0 < batch < 1 or (batch >= 1 and float(batch).is_integer()))


def _are_counts(counts: Any, or_names: bool = False) -> bool:
    if isinstance(counts, (list, tuple)):
        return all((type(count) is int and count >= 0) or (or_names and isinstance(count, str)) for count in counts)
    return counts is None or (type(counts) is int and counts >= 0)
